//! Listening TCP sockets, and errors that say what to do when there is none to be had.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// How to listen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// Several sockets may listen on the same address, the kernel spreads connections over them (`SO_REUSEPORT`). For one
    /// listener per worker of the same process; it would also hide that another process has the address.
    pub share_port: bool,
}

/// Listens on `address` with the backlog and options that every Tidegate listener uses. The socket is non-blocking and not yet
/// tied to a runtime: see [`into_tokio`].
pub fn bind(address: SocketAddr, options: ListenOptions) -> Result<StdListener, BindError> {
    open(address, options).map_err(|source| BindError::new(address, source))
}

/// Listens on `address` on the current runtime.
pub fn bind_tokio(address: SocketAddr, options: ListenOptions) -> Result<TcpListener, BindError> {
    into_tokio(bind(address, options)?).map_err(|source| BindError::new(address, source))
}

/// Ties a listener to the current runtime. Panics outside of a tokio runtime.
pub fn into_tokio(listener: StdListener) -> io::Result<TcpListener> {
    TcpListener::from_std(listener)
}

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// Name of the flag or configuration key that sets the address, for the advice in the message.
    pub setting: Option<String>,
    #[source]
    source: io::Error,
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        Self { address, setting: None, source }
    }

    /// Names the flag or configuration key that sets the address.
    #[must_use]
    pub fn with_setting(mut self, setting: impl Into<String>) -> Self {
        self.setting = Some(setting.into());
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    fn text(&self) -> String {
        let address = self.address;
        let choose = match &self.setting {
            Some(setting) => format!("choose another with {setting}"),
            None => "choose another address".to_owned(),
        };
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                format!("address {address} is in use; stop the other process or {choose}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("no permission to listen on {address}; ports below 1024 need the capability NET_BIND_SERVICE, or {choose}")
            }
            io::ErrorKind::AddrNotAvailable => {
                format!("{} is not an address of this machine; {choose}", address.ip())
            }
            _ => format!("cannot listen on {address}: {}; {choose}", self.source),
        }
    }
}

fn open(address: SocketAddr, options: ListenOptions) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted process must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if options.share_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that wait to be accepted. Generous for bursts; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_busy_port_is_named_with_what_to_do() {
        let first = bind(loopback(0), ListenOptions::default()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address, ListenOptions::default()).unwrap_err().with_setting("--ops");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(error.to_string(), format!("address {address} is in use; stop the other process or choose another with --ops"));
    }

    #[test]
    fn a_foreign_address_is_said_to_be_foreign() {
        // TEST-NET-1, never assigned to a machine.
        let address = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = bind(address, ListenOptions::default()).unwrap_err();
        assert!(error.to_string().starts_with("192.0.2.1 is not an address of this machine"));
    }

    #[test]
    fn sharing_listeners_may_take_the_same_port() {
        let options = ListenOptions { share_port: true };
        let first = bind(loopback(0), options).unwrap();
        bind(first.local_addr().unwrap(), options).unwrap();
    }

    #[tokio::test]
    async fn a_connection_arrives() {
        let listener = bind_tokio(loopback(0), ListenOptions::default()).unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        assert_eq!(client.unwrap().local_addr().unwrap(), accepted.unwrap().1);
    }
}
