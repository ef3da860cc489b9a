//! The contracts between Gantry's five programs, and nothing else: what appears on a wire or in a file that
//! another process reads. No IO, no policy.
//!
//! - [`oci`]: OCI runtime, image and distribution documents.
//! - [`capability`], [`sysctl`], [`time`]: names that the kernel gives; points in time as text.
//! - [`errno`]: what the kernel said, in the words clients look for.
//! - [`kind`]: the error kinds every layer maps to, with their gRPC, ttrpc and HTTP codes on one page.
//! - [`digest`], [`reference`], [`platform`]: the three small grammars everyone parses.
//! - [`task`] (feature `task`): the shim's task API, event payloads, runtime options, bundle file names.
//! - [`ttrpc`] (feature `task`): ttrpc framing and call bookkeeping, bytes in and messages out.
//! - [`any`] (feature `task`): messages and JSON documents packed into `google.protobuf.Any`.
//! - [`containerd`] (feature `containerd`): containerd's gRPC services, client and server.
//! - [`docker`] (feature `docker`): the Docker Engine API's documents and version rules.

#![forbid(unsafe_code)]

#[cfg(feature = "task")]
pub mod any;
pub mod capability;
#[cfg(feature = "containerd")]
pub mod containerd;
pub mod digest;
#[cfg(feature = "docker")]
pub mod docker;
pub mod errno;
pub mod kind;
pub mod oci;
pub mod platform;
pub mod reference;
pub mod sysctl;
#[cfg(feature = "task")]
pub mod task;
pub mod time;
#[cfg(feature = "task")]
pub mod ttrpc;

/// The generated code, one module per protobuf package; named through the modules above.
#[cfg(feature = "task")]
pub(crate) mod generated {
    #![allow(clippy::all, unreachable_pub, missing_docs)]
    pub mod google {
        pub mod rpc {
            include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
        }
    }
    #[cfg(feature = "containerd")]
    pub mod grpc {
        pub mod health {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
            }
        }
    }
    pub mod ttrpc {
        include!(concat!(env!("OUT_DIR"), "/ttrpc.rs"));
    }
    pub mod runtime {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
        }
    }
    pub mod gantry {
        pub mod shim {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/gantry.shim.v1.rs"));
            }
        }
    }
    pub mod io {
        pub mod containerd {
            pub mod cgroups {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/io.containerd.cgroups.v1.rs"));
                }
                pub mod v2 {
                    include!(concat!(env!("OUT_DIR"), "/io.containerd.cgroups.v2.rs"));
                }
            }
        }
    }
    pub mod containerd {
        pub mod types {
            include!(concat!(env!("OUT_DIR"), "/containerd.types.rs"));
        }
        pub mod v1 {
            pub mod types {
                include!(concat!(env!("OUT_DIR"), "/containerd.v1.types.rs"));
            }
        }
        pub mod events {
            include!(concat!(env!("OUT_DIR"), "/containerd.events.rs"));
        }
        pub mod runc {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/containerd.runc.v1.rs"));
            }
        }
        pub mod runtime {
            pub mod bootstrap {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.runtime.bootstrap.v1.rs"));
                }
            }
            pub mod sandbox {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.runtime.sandbox.v1.rs"));
                }
            }
        }
        pub mod task {
            pub mod v3 {
                include!(concat!(env!("OUT_DIR"), "/containerd.task.v3.rs"));
            }
        }
        pub mod services {
            pub mod events {
                pub mod ttrpc {
                    pub mod v1 {
                        include!(concat!(env!("OUT_DIR"), "/containerd.services.events.ttrpc.v1.rs"));
                    }
                }
                #[cfg(feature = "containerd")]
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.events.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod containers {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.containers.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod content {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.content.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod diff {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.diff.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod images {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.images.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod introspection {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.introspection.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod leases {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.leases.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod sandbox {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.sandbox.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod namespaces {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.namespaces.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod snapshots {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.snapshots.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod tasks {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.tasks.v1.rs"));
                }
            }
            #[cfg(feature = "containerd")]
            pub mod version {
                pub mod v1 {
                    include!(concat!(env!("OUT_DIR"), "/containerd.services.version.v1.rs"));
                }
            }
        }
    }
}
