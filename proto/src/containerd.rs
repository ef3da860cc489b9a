//! containerd's gRPC services: `proto::containerd::tasks::tasks_client::TasksClient` and so on.

pub use crate::generated::containerd::services::containers::v1 as containers;
pub use crate::generated::containerd::services::content::v1 as content;
pub use crate::generated::containerd::services::diff::v1 as diff;
pub use crate::generated::containerd::services::events::v1 as events;
pub use crate::generated::containerd::services::images::v1 as images;
pub use crate::generated::containerd::services::introspection::v1 as introspection;
pub use crate::generated::containerd::services::leases::v1 as leases;
pub use crate::generated::containerd::services::namespaces::v1 as namespaces;
pub use crate::generated::containerd::services::sandbox::v1 as sandbox;
pub use crate::generated::containerd::services::snapshots::v1 as snapshots;
pub use crate::generated::containerd::services::tasks::v1 as tasks;
pub use crate::generated::containerd::services::version::v1 as version;
pub use crate::generated::containerd::types;
pub use crate::generated::containerd::v1::types as task_types;
pub use crate::generated::grpc::health::v1 as health;

/// The metadata header that names the namespace a call works in.
pub const NAMESPACE_HEADER: &str = "containerd-namespace";
/// The metadata header that names the lease which new resources of a call join.
pub const LEASE_HEADER: &str = "containerd-lease";
/// Largest message either side accepts, in bytes.
pub const MAX_MESSAGE_SIZE: usize = 16 << 20;
