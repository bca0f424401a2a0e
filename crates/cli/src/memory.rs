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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Bytes that nobody uses; `None` if that is unknown.
    pub(crate) free: Option<u64>,
    /// Whether weights take part of it. Those in a file mapping do not: the system may drop and read them again, so they slow a
    /// run down but never forbid it.
    pub(crate) weights: bool,
}

impl Room {
    /// Bytes that a model takes of it.
    pub(crate) fn needs(&self, plan: &MemoryPlan) -> u64 {
        plan.kv + plan.scratch + if self.weights { plan.weights } else { 0 }
    }

    /// Refuses a context that does not fit, naming the largest that does.
    pub(crate) fn check(
        &self,
        plan: &MemoryPlan,
        context: u32,
        plan_at: impl Fn(u32) -> anyhow::Result<MemoryPlan>,
    ) -> anyhow::Result<()> {
        let needed = self.needs(plan);
        let Some(free) = self.free.filter(|&free| needed > free) else { return Ok(()) };
        let (mut fits, mut over) = (0, context);
        while over - fits > 1 {
            let middle = fits + (over - fits) / 2;
            if self.needs(&plan_at(middle)?) <= free { fits = middle } else { over = middle }
        }
        bail!(
            "not enough memory for --ctx={context}: needs {}, free are {}: {}",
            size(needed),
            size(free),
            match fits {
                0 if self.weights => "no context fits, use --cpu".to_owned(),
                0 => "no context fits".to_owned(),
                _ => format!("largest that fits is --ctx={fits}"),
            }
        )
    }
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
        let plan_at = |ctx: u32| MemoryPlan { weights: 500, kv: u64::from(ctx), scratch: 10 };
        let message = |weights, free| {
            let room = Room { free: Some(free), weights };
            room.check(&plan_at(1000), 1000, |ctx| Ok(plan_at(ctx))).map_err(|error| error.to_string())
        };
        let error = message(false, 133).expect_err("too large");
        assert!(error.ends_with("largest that fits is --ctx=123"), "{error}");
        let error = message(true, 633).expect_err("too large");
        assert!(error.ends_with("largest that fits is --ctx=123"), "{error}");
        let error = message(true, 500).expect_err("too large");
        assert!(error.ends_with("no context fits, use --cpu"), "{error}");
        assert_eq!((message(false, 1010), message(true, 1510)), (Ok(()), Ok(())));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([size(1500), size(2_600_000), size(86_700_000_000)], ["1.5 kB", "2.6 MB", "86.70 GB"]);
    }
}
