//! One model on two devices, stage by stage: the reference runs a step first, then the device under test runs it with the
//! reference's inputs for every stage. Owns the pair; what is compared and how is `tap.rs`'s and `tally.rs`'s.

use std::io::{Read, Write};
use std::ops::Range;

use ds4_gguf::Gguf;
use ds4_model::{
    Backend, Batch, DraftRow, Error, Limits, Model, Numerics, Part, Result, Shape, SlotId, Transformer, Variant,
};

use crate::tally::{StageLine, Tally};
use crate::tap::{Role, Tap, Tape};

/// A [`Model`] that answers with what `R` computes and keeps count of how far `D` is from it.
///
/// After each stage every output that is defined is compared and the device's copy overwritten. So after every step both
/// caches hold the same bytes, unless the device has written where it should not: [`Model::save`] finds that out.
pub struct Lockstep<R: Backend, D: Backend> {
    reference: Transformer<Tap<R>>,
    device: Transformer<Tap<D>>,
}

impl<R: Backend, D: Backend> Lockstep<R, D> {
    /// Opens `file` on both; `draft` is the file of a draft block to go with it.
    pub fn new(
        reference: R,
        device: D,
        (file, draft): (&Gguf, Option<&Gguf>),
        limits: Limits,
        numerics: Numerics,
    ) -> Result<Lockstep<R, D>> {
        let shape = Shape::from_gguf(file)?;
        let reference = Tap::new(reference, &shape, Role::Record(Tape::new()));
        let device = Tap::new(device, &shape, Role::Follow(Tape::new(), Box::new(Tally::new(&shape, numerics))));
        Ok(Lockstep {
            reference: Transformer::new(reference, file, draft, limits, numerics)?,
            device: Transformer::new(device, file, draft, limits, numerics)?,
        })
    }

    /// What the steps from here on are called in the lines.
    pub fn label(&mut self, label: &str) {
        label.clone_into(&mut self.follow().1.label);
    }

    /// What has been compared so far.
    pub fn lines(&mut self) -> &[StageLine] {
        &self.follow().1.lines
    }

    fn follow(&mut self) -> (&mut Tape, &mut Tally) {
        match &mut self.device.backend_mut().role {
            Role::Follow(tape, tally) => (tape, tally),
            _ => unreachable!("the device follows from the start"),
        }
    }

    /// Hands the reference's tape to the device.
    fn pass_tape(&mut self) {
        let Role::Record(tape) = &mut self.reference.backend_mut().role else {
            unreachable!("the reference records from the start")
        };
        *self.follow().0 = std::mem::take(tape);
    }
}

impl<R: Backend, D: Backend> Model for Lockstep<R, D> {
    fn shape(&self) -> &Shape {
        self.reference.shape()
    }

    fn limits(&self) -> Limits {
        self.reference.limits()
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<()> {
        self.reference.forward(batch, logits)?;
        self.pass_tape();
        self.device.forward(batch, &mut vec![0.0; logits.len()])
    }

    /// The reference's state. An error if the device's is another one.
    fn save(&mut self, slot: SlotId, rows: Range<u32>, out: &mut dyn Write) -> Result<()> {
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        self.reference.save(slot, rows.clone(), &mut expected)?;
        self.device.save(slot, rows, &mut found)?;
        if expected != found {
            let at = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
            let bytes = expected.iter().zip(&found).filter(|(a, b)| a != b).count();
            let what = format!("{bytes} bytes of slot {slot} differ, the first at {at} of the saved state");
            return Err(Error::State(what));
        }
        Ok(out.write_all(&expected)?)
    }

    fn load(&mut self, slot: SlotId, rows: Range<u32>, src: &mut dyn Read) -> Result<()> {
        let mut state = vec![0; self.state_bytes(rows.clone()) as usize];
        src.read_exact(&mut state)?;
        self.reference.load(slot, rows.clone(), &mut &state[..])?;
        self.device.load(slot, rows, &mut &state[..])
    }

    fn copy(&mut self, from: SlotId, to: SlotId, n: u32) -> Result<()> {
        self.reference.copy(from, to, n)?;
        self.device.copy(from, to, n)
    }

    fn state_bytes(&self, rows: Range<u32>) -> u64 {
        self.reference.state_bytes(rows)
    }

    fn parts(&self, n: u32) -> Vec<Part> {
        self.reference.parts(n)
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.reference.fingerprint()
    }

    fn variant(&self) -> Variant {
        self.reference.variant()
    }

    fn has_draft(&self) -> bool {
        self.reference.has_draft()
    }

    fn draft(&mut self, rows: &[DraftRow], logits: &mut [f32]) -> Result<()> {
        self.reference.draft(rows, logits)?;
        self.pass_tape();
        self.device.draft(rows, &mut vec![0.0; logits.len()])
    }
}
