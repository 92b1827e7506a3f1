//! Connections to PostgreSQL, named as libpq names them, over tokio-postgres and rustls.
//!
//! [`Conninfo`] is what was typed, [`Login`] is that with what the environment adds (password,
//! sslmode, root certificate), [`Tls`] is the encryption prepared once, and [`connect`] opens one
//! session to one address under one limit. Host name and address are separate: the address may come
//! from Incus, and a certificate is still checked against the name.
//!
//! Its border: nothing here retries, pools, or sends a cancel request. Of libpq's environment only
//! `PGUSER`, `PGPASSWORD` (or `PGPASSWORD_FILE`), `PGPASSFILE`, `PGSSLMODE`, `PGSSLROOTCERT` and
//! `HOME` count, all through a lookup that the caller passes.

mod invalid;
mod text;
mod options;
mod conninfo;
mod passfile;
mod login;
mod tls;
mod failure;
mod access;
mod connect;
mod carried;

pub use access::Access;
pub use carried::Carried;
pub use connect::{
    Driver, Messages, Session, Target, connect, connect_first, rows, suits, writable,
};
pub use conninfo::{Conninfo, Host};
pub use failure::{Error, Kind, Said, Step};
pub use invalid::InvalidConninfo;
pub use login::{Login, LoginError};
pub use options::{ChannelBinding, Keepalives, SslMode, Wanted};
pub use passfile::Passfile;
pub use tls::{Tls, TlsError};
