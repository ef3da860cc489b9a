//! Kernel parameters that a container may have of its own.

/// Those of an ipc namespace beside `fs.mqueue.*` (ipc_namespaces(7)).
pub const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
