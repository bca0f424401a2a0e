//! The options of the prefix caches outside the device (server.md 12.6), checked for form and range.

use std::path::PathBuf;

use ds4_engine::{KvCompression, KvLog, KvStoreConfig};

use crate::args::Args;
use crate::failure::usage;

use super::options::choice;

/// What was asked for; numbers as they stand on the command line.
#[derive(Clone, Debug)]
pub(super) struct KvFlags {
    pub(super) dir: Option<PathBuf>,
    pub(super) ram_mb: Option<u64>,
    pub(super) space_mb: u64,
    pub(super) min_tokens: u32,
    /// 0: no cold saves.
    pub(super) cold_max_tokens: u32,
    /// 0: none.
    pub(super) continued_interval: u32,
    pub(super) boundary_trim: u32,
    /// 0: off.
    pub(super) boundary_align: u32,
    pub(super) reject_different_quant: bool,
    /// 0: no limit.
    pub(super) write_mbps: u32,
    pub(super) compress: String,
    pub(super) readonly: bool,
}

impl Default for KvFlags {
    fn default() -> Self {
        Self {
            dir: None,
            ram_mb: None,
            space_mb: 4096,
            min_tokens: 512,
            cold_max_tokens: 30_000,
            continued_interval: 10_000,
            boundary_trim: 32,
            boundary_align: 2048,
            reject_different_quant: false,
            write_mbps: 500,
            compress: "lz4".to_owned(),
            readonly: false,
        }
    }
}

impl KvFlags {
    pub(super) fn take(&mut self, flag: &str, args: &mut Args) -> anyhow::Result<bool> {
        let tokens = 0..=u64::from(u32::MAX);
        match flag {
            "--kv-disk-dir" => self.dir = Some(args.path(flag)?),
            "--kv-ram-mb" => self.ram_mb = Some(args.int(flag, 0..=1 << 32)?),
            "--kv-disk-space-mb" => self.space_mb = args.int(flag, 1..=1 << 40)?,
            "--kv-cache-min-tokens" => self.min_tokens = args.int(flag, tokens)? as u32,
            "--kv-cache-cold-max-tokens" => self.cold_max_tokens = args.int(flag, tokens)? as u32,
            "--kv-cache-continued-interval-tokens" => self.continued_interval = args.int(flag, tokens)? as u32,
            "--kv-cache-boundary-trim-tokens" => self.boundary_trim = args.int(flag, tokens)? as u32,
            "--kv-cache-boundary-align-tokens" => self.boundary_align = args.int(flag, tokens)? as u32,
            "--kv-cache-reject-different-quant" => self.reject_different_quant = true,
            "--kv-disk-write-mbps" => self.write_mbps = args.int(flag, 0..=u64::from(u32::MAX))? as u32,
            "--kv-disk-compress" => self.compress = choice(flag, args, &["none", "lz4", "zstd"])?,
            "--kv-cache-readonly" => self.readonly = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The store that was asked for; what it has to say goes to `log`.
    pub(super) fn store(&self, log: KvLog) -> Option<KvStoreConfig> {
        Some(KvStoreConfig {
            space_mb: self.space_mb,
            min_tokens: self.min_tokens,
            cold_max_tokens: self.cold_max_tokens,
            continued_interval: self.continued_interval,
            boundary_trim: self.boundary_trim,
            boundary_align: self.boundary_align,
            reject_different_quant: self.reject_different_quant,
            write_mbps: self.write_mbps,
            compression: if self.compress == "none" { KvCompression::None } else { KvCompression::Lz4 },
            readonly: self.readonly,
            log,
            ..KvStoreConfig::new(self.dir.clone()?)
        })
    }

    /// Refuses what contradicts itself, and what this build cannot do. Flags of a cache that is off change nothing.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.cold_max_tokens != 0 && self.cold_max_tokens < self.min_tokens {
            return Err(usage(format!(
                "--kv-cache-cold-max-tokens={}: expected 0 or at least --kv-cache-min-tokens={}",
                self.cold_max_tokens, self.min_tokens
            )));
        }
        if self.compress == "zstd" {
            return Err(usage("--kv-disk-compress=zstd is not supported by this build: use lz4 or none"));
        }
        if self.ram_mb.is_some_and(|mb| mb > 0) {
            return Err(usage("--kv-ram-mb is not supported by this build"));
        }
        Ok(())
    }
}
