//! What an edge is told to be: plain domain values, already parsed and checked for form.
//!
//! Files, environment and defaults are the binary's business; nothing here reads them. [`EdgeConfig`] is fixed for the life of the
//! process, [`MeshConfig`] is what a reload replaces: providers, models, endpoints, keys, presets and defaults. A `MeshConfig` is
//! proven good only by compiling it ([`crate::check`]), which is also what `tidegate check` runs.

mod control_link;
mod key;
mod ledger;
mod limits;
mod mesh;
mod model;
mod owner;
mod process;
mod provider;
mod quota;
#[cfg(test)]
pub(crate) mod testing;

pub use control_link::{ControlEndpoint, ControlLinkConfig};
pub use key::{KeyConfig, KeyPolicy};
pub use ledger::{ContentConfig, ExportConfig, LedgerConfig, ObjectsConfig};
pub use limits::Limits;
pub use mesh::{Defaults, MeshConfig, PresetConfig};
pub use model::{EndpointConfig, ModelConfig};
pub use owner::{OrganisationConfig, WorkspaceConfig};
pub use process::{AccessLogConfig, CertificateFiles, EdgeConfig, ListenerConfig, ListenerTls, RuntimeModel, WorkerConfig};
pub use provider::{CredentialConfig, ProviderConfig, UpstreamHttp};
pub use quota::{QuotaConfig, StoreConfig};
