//! The options of the prefix caches outside the device (server.md 12.6), checked for form and range.

use std::path::PathBuf;

use ds4_engine::{KvCompression, KvLog, KvStoreConfig};

use crate::args::Args;
use crate::failure::usage;

use super::options::choice;

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct KvFlags {
    settings: KvStoreConfig,
    /// Host memory for states, if there is no directory. 0: a tenth of it.
    ram_mb: Option<u64>,
    zstd: bool,
}

impl Default for KvFlags {
    fn default() -> Self {
        Self { settings: KvStoreConfig::in_memory(), ram_mb: None, zstd: false }
    }
}

impl KvFlags {
    pub(super) fn take(&mut self, flag: &str, args: &mut Args) -> anyhow::Result<bool> {
        let tokens = 0..=u64::from(u32::MAX);
        let store = &mut self.settings;
        match flag {
            "--kv-disk-dir" => store.dir = Some(args.path(flag)?),
            "--kv-ram-mb" => self.ram_mb = Some(args.int(flag, 0..=1 << 32)?),
            "--kv-disk-space-mb" => store.space_mb = args.int(flag, 1..=1 << 40)?,
            "--kv-cache-min-tokens" => store.min_tokens = args.int(flag, tokens)? as u32,
            "--kv-cache-cold-max-tokens" => store.cold_max_tokens = args.int(flag, tokens)? as u32,
            "--kv-cache-continued-interval-tokens" => store.continued_interval = args.int(flag, tokens)? as u32,
            "--kv-cache-boundary-trim-tokens" => store.boundary_trim = args.int(flag, tokens)? as u32,
            "--kv-cache-boundary-align-tokens" => store.boundary_align = args.int(flag, tokens)? as u32,
            "--kv-cache-reject-different-quant" => store.reject_different_quant = true,
            "--kv-disk-write-mbps" => store.write_mbps = args.int(flag, tokens)? as u32,
            "--kv-disk-compress" => {
                let form = choice(flag, args, &["none", "lz4", "zstd"])?;
                self.zstd = form == "zstd";
                store.compression = if form == "none" { KvCompression::None } else { KvCompression::Lz4 };
            }
            "--kv-cache-readonly" => store.readonly = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The store that was asked for; what it has to say goes to `log`. `memory` is what the machine has, in bytes.
    pub(super) fn store(&self, log: KvLog, memory: Option<u64>) -> KvStoreConfig {
        let store = KvStoreConfig { log, ..self.settings.clone() };
        if store.dir.is_some() {
            return store;
        }
        let tenth = memory.map_or(store.space_mb, |bytes| (bytes / 10) >> 20);
        let space_mb = self.ram_mb.filter(|&mb| mb > 0).unwrap_or(tenth);
        KvStoreConfig { space_mb, write_mbps: 0, readonly: false, ..store }
    }

    /// Where turns and responses are kept: beside the states. And whether nothing may be written there.
    pub(super) fn journals(&self) -> (Option<PathBuf>, bool) {
        (self.settings.dir.clone(), self.settings.readonly)
    }

    /// Refuses what contradicts itself, and what this build cannot do.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let KvStoreConfig { cold_max_tokens, min_tokens, .. } = self.settings;
        if cold_max_tokens != 0 && cold_max_tokens < min_tokens {
            return Err(usage(format!(
                "--kv-cache-cold-max-tokens={cold_max_tokens}: expected 0 or at least --kv-cache-min-tokens={min_tokens}"
            )));
        }
        if self.zstd {
            return Err(usage("--kv-disk-compress=zstd is not supported by this build: use lz4 or none"));
        }
        if self.ram_mb.is_some() && self.settings.dir.is_some() {
            return Err(usage(
                "--kv-ram-mb is for a server without --kv-disk-dir: files of that directory stay in memory by themselves",
            ));
        }
        Ok(())
    }
}
