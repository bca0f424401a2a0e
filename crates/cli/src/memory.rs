//! Whether a model fits: the line before loading, the refusal, and what the machine has. Knows no device.

use std::fs;
use std::hint::black_box;
use std::thread;

use anyhow::bail;
use ds4_gguf::Gguf;
use ds4_model::MemoryPlan;

const PAGE: usize = 4096;

/// The line printed before loading.
pub(crate) fn line(plan: &MemoryPlan, context: u32, backend: &str) -> String {
    format!(
        "ds4: memory: weights {}, KV {}, scratch {} (context {context}, backend {backend})",
        size(plan.weights),
        size(plan.kv),
        size(plan.scratch),
    )
}

/// The memory that a model is to use.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// Name of the card or GPU whose memory it is; weights take part of it. On the host, `None`, they do not: the system may drop
    /// what a file mapping holds and read it again, so they slow a run down but never forbid it.
    pub(crate) device: Option<String>,
    /// Bytes that nobody uses; `None` if that is unknown.
    pub(crate) free: Option<u64>,
    /// Bytes that there would be if nobody else used any.
    pub(crate) total: u64,
    /// Most bytes of one buffer.
    pub(crate) piece: u64,
}

impl Room {
    /// Bytes that a model takes of it.
    pub(crate) fn needs(&self, plan: &MemoryPlan) -> u64 {
        plan.kv + plan.scratch + if self.device.is_some() { plan.weights } else { 0 }
    }

    /// What a model needs and this has not.
    pub(crate) fn lacks(&self, plan: &MemoryPlan) -> Option<String> {
        let on = self.device.as_ref().map_or_else(String::new, |name| format!(" on {name}"));
        let needed = self.needs(plan);
        match self.free {
            Some(free) if needed > free => Some(format!("needs {}, free are {}{on}", size(needed), size(free))),
            _ if plan.piece > self.piece => {
                Some(format!("needs {} in one buffer, the most are {}{on}", size(plan.piece), size(self.piece)))
            }
            _ => None,
        }
    }

    /// What to do if not even a short context fits.
    pub(crate) fn way_out(&self, plan: &MemoryPlan) -> &'static str {
        match &self.device {
            None => "no context fits",
            // What drivers keep for themselves is less.
            Some(_) if self.needs(plan) <= self.total && self.free.is_some_and(|free| free < self.total / 8 * 7) => {
                "other programs use the rest: stop them, or use --cpu"
            }
            Some(_) if self.free.is_some_and(|free| plan.weights > free) => "no context fits, use --cpu",
            Some(_) => "no context fits, use a smaller --prefill-chunk or --cpu",
        }
    }

    /// Refuses a context that does not fit, naming the largest that does.
    pub(crate) fn check(
        &self,
        plan: &MemoryPlan,
        context: u32,
        plan_at: impl Fn(u32) -> anyhow::Result<MemoryPlan>,
    ) -> anyhow::Result<()> {
        let Some(lacking) = self.lacks(plan) else { return Ok(()) };
        let fits = match largest(context, |context| Ok(self.lacks(&plan_at(context)?).is_none()))? {
            0 => self.way_out(plan).to_owned(),
            fits => format!("largest that fits is --ctx={fits}"),
        };
        bail!("not enough memory for --ctx={context}: {lacking}: {fits}")
    }
}

/// The largest number up to `most` that fits, 0 if none does.
pub(crate) fn largest(most: u32, fits: impl Fn(u32) -> anyhow::Result<bool>) -> anyhow::Result<u32> {
    let (mut least, mut over) = (0, most.saturating_add(1));
    while over - least > 1 {
        let middle = least + (over - least) / 2;
        if fits(middle)? { least = middle } else { over = middle }
    }
    Ok(least)
}

/// Bytes that a new allocation may use: what the system calls available, within the control group's limit.
pub(crate) fn available() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let free = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    match (number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current")) {
        (Some(most), Some(used)) => Some(free.min(most.saturating_sub(used))),
        _ => Some(free),
    }
}

/// Reads one byte of every page of every tensor, so that the first answer does not wait for the disk. `told` hears the bytes
/// of each.
pub(crate) fn warm(gguf: &Gguf, threads: usize, told: impl Fn(u64) + Sync) {
    let tensors = gguf.tensors();
    thread::scope(|scope| {
        for part in tensors.chunks(tensors.len().div_ceil(threads.max(1)).max(1)) {
            let told = &told;
            scope.spawn(move || {
                for tensor in part.iter().filter_map(|info| gguf.tensor(&info.name)) {
                    black_box(tensor.data.iter().step_by(PAGE).map(|&byte| u64::from(byte)).sum::<u64>());
                    told(tensor.data.len() as u64);
                }
            });
        }
    });
}

/// A size with its unit, powers of ten.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_does_not_fit_names_the_largest_that_does() {
        let plan_at =
            |ctx: u32| MemoryPlan { weights: 500, kv: u64::from(ctx), scratch: 10, piece: u64::from(ctx / 4) };
        let refusal =
            |room: &Room| room.check(&plan_at(1000), 1000, |ctx| Ok(plan_at(ctx))).err().map(|error| error.to_string());
        let message = |device: Option<&str>, free, piece| {
            let room = Room { device: device.map(str::to_owned), free: Some(free), total: free, piece };
            refusal(&room)
        };
        let of = |text: &str| Some(format!("not enough memory for --ctx=1000: {text}"));
        let (any, gpu) = (u64::MAX, Some("G"));
        assert_eq!(message(None, 133, any), of("needs 1.0 kB, free are 0.1 kB: largest that fits is --ctx=123"));
        assert_eq!(message(gpu, 633, any), of("needs 1.5 kB, free are 0.6 kB on G: largest that fits is --ctx=123"));
        assert_eq!(message(gpu, 499, any), of("needs 1.5 kB, free are 0.5 kB on G: no context fits, use --cpu"));
        let busy = Room { device: gpu.map(str::to_owned), free: Some(400), total: 2000, piece: any };
        let others = "needs 1.5 kB, free are 0.4 kB on G: other programs use the rest: stop them, or use --cpu";
        assert_eq!(refusal(&busy), of(others));
        let chunk = "needs 1.5 kB, free are 0.5 kB on G: no context fits, use a smaller --prefill-chunk or --cpu";
        assert_eq!(message(gpu, 510, any), of(chunk));
        let piece = "needs 0.2 kB in one buffer, the most are 0.1 kB on G: largest that fits is --ctx=403";
        assert_eq!(message(gpu, 1510, 100), of(piece));
        assert_eq!((message(None, 1010, any), message(gpu, 1510, 250)), (None, None));
    }

    #[test]
    fn the_largest_that_fits_is_found() {
        for limit in [0, 1, 57, 99, 100] {
            assert_eq!(largest(100, |n| Ok(n <= limit)).expect("a number"), limit);
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([size(1500), size(2_600_000), size(86_700_000_000)], ["1.5 kB", "2.6 MB", "86.70 GB"]);
    }
}
