//! Every shader parses, is valid, and can be said in Metal's language, for small and released shapes.

use ds4_model::Shape;
use ds4_wgpu::Shader;
use naga::back::msl;
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// The released shapes and the smallest one of the tests.
fn shapes() -> Vec<Shape> {
    vec![Shape::flash(), Shape::pro(), ds4_synth::preset("tiny").expect("a preset").shape]
}

/// What the shaders ask of a device at most.
fn capabilities() -> Capabilities {
    Capabilities::IMMEDIATES
        | Capabilities::SUBGROUP
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::MEMORY_DECORATION_COHERENT
        | Capabilities::SHADER_FLOAT16
        | Capabilities::COOPERATIVE_MATRIX
}

fn translate(shader: &Shader) -> Result<usize, String> {
    let module = naga::front::wgsl::parse_str(&shader.text).map_err(|e| e.emit_to_string(&shader.text))?;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities());
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(&shader.text))?;
    if shader.matrices {
        return Ok(shader.text.len()); // Metal's matrices are smaller: it never gets these
    }
    let mut next = 0;
    let mut resources = msl::EntryPointResources::default();
    for (_, global) in module.global_variables.iter() {
        if let Some(binding) = global.binding {
            let mutable = global.space.access().contains(naga::StorageAccess::STORE);
            let target = msl::BindTarget { buffer: Some(next), mutable, ..msl::BindTarget::default() };
            resources.resources.insert(binding, target);
            next += 1;
        }
    }
    resources.immediates_buffer = Some(next);
    resources.sizes_buffer = Some(next + 1);
    let options = msl::Options {
        // Metal never gets those whose workgroups share memory.
        lang_version: if shader.name.contains("FUSED") { (3, 2) } else { (2, 4) },
        per_entry_point_map: [(shader.entry.to_owned(), resources)].into(),
        fake_missing_bindings: false,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((naga::ShaderStage::Compute, shader.entry.to_owned())),
        ..msl::PipelineOptions::default()
    };
    let (text, _) = msl::write_string(&module, &info, &options, &pipeline).map_err(|e| e.to_string())?;
    Ok(text.len())
}

#[test]
fn every_shader_is_valid_and_can_be_said_in_metals_language() {
    let mut failures = Vec::new();
    for shape in shapes() {
        for shader in ds4_wgpu::shaders(&shape) {
            match translate(&shader) {
                Ok(bytes) => assert!(bytes > 500, "{}: {bytes} bytes", shader.name),
                Err(what) => failures.push(format!("{}, {}: {what}", shape.name, shader.name)),
            }
        }
    }
    assert!(failures.is_empty(), "{} shaders: {}", failures.len(), failures.join("\n"));
}

/// The sizes of the variables in workgroup memory that a shader uses.
fn workgroup_variables(shader: &Shader) -> Vec<u32> {
    let module = naga::front::wgsl::parse_str(&shader.text).expect("checked by the other test");
    let mut validator = Validator::new(ValidationFlags::all(), capabilities());
    let info = validator.validate(&module).expect("checked by the other test");
    let entry = module.entry_points.iter().position(|entry| entry.name == shader.entry).expect("its entry point");
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("checked by the other test");
    let used = |handle: naga::Handle<naga::GlobalVariable>| !info.get_entry_point(entry)[handle].is_empty();
    let shared = module.global_variables.iter().filter(|(_, global)| global.space == naga::AddressSpace::WorkGroup);
    shared.filter(|(handle, _)| used(*handle)).map(|(_, global)| layouter[global.ty].size).collect()
}

#[test]
fn no_shader_wants_more_workgroup_memory_than_every_adapter_is_asked_for() {
    for shape in shapes() {
        for shader in ds4_wgpu::shaders(&shape) {
            let bytes: u32 = workgroup_variables(&shader).iter().sum();
            let most = if shader.name.contains("roomy: true") { 48 << 10 } else { 32 << 10 };
            assert!(bytes <= most, "{}, {}: {bytes} bytes", shape.name, shader.name);
        }
    }
}

/// Vulkan wants rows of a matrix in memory to begin at a multiple of sixteen bytes, and drivers put one variable behind the other.
#[test]
fn matrices_in_workgroup_memory_are_aligned_whatever_the_order_of_variables() {
    let shaders = ds4_wgpu::shaders(&Shape::flash());
    let with_matrices = || shaders.iter().filter(|shader| shader.text.contains("coop_mat"));
    assert!(with_matrices().count() >= 12, "three kernels for four kinds of adapters");
    for shader in with_matrices() {
        let sizes = workgroup_variables(shader);
        assert!(sizes.iter().all(|size| size % 16 == 0), "{}: {sizes:?}", shader.name);
    }
}
