//! Sockets to listen on: every address of every host, all with the same port, and a socket file.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
#[cfg(unix)]
use std::path::PathBuf;

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use crate::config::ServerConfig;
use crate::serve::StartError;

/// An open socket.
pub(crate) enum Listener {
    Tcp(TcpListener, SocketAddr),
    #[cfg(unix)]
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when dropped")] SocketFile),
}

impl Listener {
    /// Where a network socket listens.
    #[cfg_attr(not(unix), expect(clippy::unnecessary_wraps, reason = "only Unix has sockets without an address"))]
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(_, address) => Some(*address),
            #[cfg(unix)]
            Listener::Unix(..) => None,
        }
    }
}

/// A socket file of ours.
#[cfg(unix)]
pub(crate) struct SocketFile(PathBuf);

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it before.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens everything that was asked for. Has to be called within a runtime.
pub(crate) fn open(config: &ServerConfig) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    let mut port = config.port;
    for host in &config.hosts {
        open_host(host, &mut port, &mut listeners)
            .map_err(|source| StartError::Listen { address: shown(host, config.port), source })?;
    }
    #[cfg(unix)]
    if let Some(path) = &config.unix_socket {
        let listener =
            open_file(path).map_err(|source| StartError::Listen { address: path.display().to_string(), source })?;
        listeners.push(Listener::Unix(listener, SocketFile(path.clone())));
    }
    #[cfg(not(unix))]
    if let Some(path) = &config.unix_socket {
        let source = io::ErrorKind::Unsupported.into();
        return Err(StartError::Listen { address: path.display().to_string(), source });
    }
    Ok(listeners)
}

/// All addresses of a host; those of a name that this machine does not have are passed over. The first socket chooses the
/// port if any will do.
fn open_host(host: &str, port: &mut u16, listeners: &mut Vec<Listener>) -> io::Result<()> {
    let before = listeners.len();
    let mut missing = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (bare(host), *port).to_socket_addrs()? {
        let address = SocketAddr::new(address.ip(), *port);
        if listeners.iter().any(|l| l.address() == Some(address)) {
            continue;
        }
        match open_address(address) {
            Ok((listener, address)) => {
                *port = address.port();
                listeners.push(Listener::Tcp(listener, address));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => missing = error,
            Err(error) => return Err(error),
        }
    }
    if listeners.len() == before { Err(missing) } else { Ok(()) }
}

fn open_address(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok((TcpListener::from_std(socket)?, address))
}

/// A socket file that only its owner may use. One that nobody listens on is left over from an earlier run and replaced.
#[cfg(unix)]
fn open_file(path: &std::path::Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path)?,
        }
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A host without the brackets of an IPv6 literal.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn shown(host: &str, port: u16) -> String {
    let host = bare(host);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
