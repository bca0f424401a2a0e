//! Any bytes as a model or support file: header, metadata, directory, shape, names and dims. Nothing may panic, and what
//! opens must be readable.
#![no_main]

use ds4_gguf::{DType, Gguf, dequant};
use ds4_model::{Shape, validate, validate_draft};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = Gguf::from_bytes("fuzz", data.to_vec().into()) else { return };
    for info in file.tensors() {
        let tensor = file.tensor(&info.name).expect("listed tensors can be taken");
        if tensor.n_rows() > 0 && tensor.n_in() < 1 << 16 && tensor.dtype != DType::I32 {
            dequant::row(tensor.dtype, tensor.row(0), &mut vec![0.0; tensor.n_in()]);
        }
    }
    if let Ok(shape) = Shape::from_gguf(&file) {
        let _ = validate(&file, &shape);
    }
    let _ = validate_draft(&file, &Shape::flash());
});
