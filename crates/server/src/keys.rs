//! API keys: where they come from, who they belong to, whether a request has one. Only digests are kept, and every check
//! looks at all of them, so that its time tells nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::ServerConfig;

/// All keys of the server.
pub(crate) struct Keys {
    fixed: Vec<Key>,
    file: Option<PathBuf>,
    of_file: RwLock<Vec<Key>>,
}

#[derive(Clone)]
struct Key {
    digest: [u8; 32],
    owner: Owner,
}

/// Who has a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// As the key file names it.
    pub(crate) name: Option<String>,
    /// Tells owners apart and says nothing else.
    pub(crate) tenant: String,
}

impl Keys {
    /// # Errors
    /// If the key file cannot be read or holds no key.
    pub(crate) fn load(config: &ServerConfig) -> io::Result<Self> {
        let fixed = config.api_keys.iter().map(|(key, name)| Key::new(key, name.as_deref())).collect();
        let file = config.api_key_file.clone();
        let of_file = RwLock::new(file.as_deref().map(read).transpose()?.unwrap_or_default());
        Ok(Self { fixed, file, of_file })
    }

    /// Reads the file again; if that fails the keys stay as they are.
    pub(crate) fn reload(&self) -> io::Result<()> {
        if let Some(file) = &self.file {
            let keys = read(file)?;
            *self.of_file.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
        Ok(())
    }

    /// Whether requests need a key.
    pub(crate) fn needed(&self) -> bool {
        !self.fixed.is_empty() || self.file.is_some()
    }

    /// The owner of the key that a request carries in either of the two usual headers.
    pub(crate) fn owner(&self, headers: &HeaderMap) -> Option<Owner> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        let plain = headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::trim);
        [bearer, plain].into_iter().flatten().find_map(|key| self.find(key))
    }

    fn find(&self, given: &str) -> Option<Owner> {
        let digest: [u8; 32] = Sha256::digest(given).into();
        let of_file = self.of_file.read().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut at) = (Choice::from(0), 0_u64);
        for (i, key) in self.fixed.iter().chain(of_file.iter()).enumerate() {
            let same = key.digest.ct_eq(&digest);
            at.conditional_assign(&(i as u64), same);
            found |= same;
        }
        let key = self.fixed.iter().chain(of_file.iter()).nth(at as usize)?;
        bool::from(found).then(|| key.owner.clone())
    }
}

impl Key {
    fn new(key: &str, name: Option<&str>) -> Self {
        let digest: [u8; 32] = Sha256::digest(key).into();
        // Of another hash than the key's own, which stays in here.
        let tenant = Sha256::digest([b"tenant:".as_slice(), &digest].concat());
        let tenant = tenant[..8].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Self { digest, owner: Owner { name: name.map(str::to_owned), tenant } }
    }
}

/// `KEY` or `KEY NAME` a line; empty lines and comments are passed over. A file without keys would lock everyone out, or let
/// everyone in: it is an error.
fn read(path: &Path) -> io::Result<Vec<Key>> {
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<Key> = lines
        .map(|line| match line.split_once(char::is_whitespace) {
            Some((key, name)) => Key::new(key, Some(name.trim())),
            None => Key::new(line, None),
        })
        .collect();
    if keys.is_empty() { Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no key")) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|&(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_key_is_taken_from_either_header_and_compared_whole() {
        let config = ServerConfig {
            api_keys: vec![("one".to_owned(), None), ("two".to_owned(), Some("bob".to_owned()))],
            ..ServerConfig::default()
        };
        let keys = Keys::load(&config).expect("keys");
        let name = |pairs: &[(&'static str, &'static str)]| keys.owner(&headers(pairs)).map(|owner| owner.name);
        assert!(keys.needed());
        assert_eq!(name(&[("authorization", "Bearer one")]), Some(None));
        assert_eq!(name(&[("authorization", "bEARER  two ")]), Some(Some("bob".to_owned())));
        assert_eq!(name(&[("x-api-key", "two")]), Some(Some("bob".to_owned())));
        assert_eq!(name(&[("authorization", "Bearer wrong"), ("x-api-key", "one")]), Some(None));
        for wrong in ["on", "onee", "", "One", "one two"] {
            assert_eq!(keys.find(wrong), None, "{wrong:?}");
        }
        assert_eq!(name(&[("authorization", "one")]), None);
        assert_eq!(name(&[]), None);
        assert_ne!(keys.find("one").map(|o| o.tenant), keys.find("two").map(|o| o.tenant));
    }

    #[test]
    fn the_file_has_names_and_comments_and_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        std::fs::write(&path, "# ours\n\nalpha  Team A\n  beta\n").expect("written");
        let config = ServerConfig { api_key_file: Some(path.clone()), ..ServerConfig::default() };
        let keys = Keys::load(&config).expect("keys");
        assert_eq!(keys.find("alpha").and_then(|owner| owner.name).as_deref(), Some("Team A"));
        assert!(keys.find("beta").is_some() && keys.find("#").is_none());
        std::fs::write(&path, "gamma\n").expect("written");
        assert!(keys.find("gamma").is_none());
        keys.reload().expect("read again");
        assert!(keys.find("gamma").is_some() && keys.find("alpha").is_none());
        std::fs::write(&path, "# none\n").expect("written");
        assert!(keys.reload().is_err() && keys.find("gamma").is_some(), "a bad file changes nothing");
        assert!(Keys::load(&config).is_err());
    }
}
