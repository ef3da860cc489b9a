//! The only module with `unsafe`.

/// Two malloc arenas at most: glibc makes one per thread otherwise, and each keeps what it was once given.
pub(crate) fn bound_malloc_arenas() {
    // SAFETY: mallopt takes two integers and touches only the allocator's own settings.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Big buffers (content chunks, inflate windows) go back to the kernel when freed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 10);
    }
}

/// Gives unused heap back to the kernel; called after bursts such as a layer apply.
pub(crate) fn trim_heap() {
    // SAFETY: malloc_trim only releases free memory of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives the calling thread a mount namespace of its own, from which nothing gets back to the host. It and its
/// mounts end with the thread, which must not be one of a pool.
pub(crate) fn own_mount_namespace() -> std::io::Result<()> {
    // SAFETY: unshare touches only the calling thread's namespace and working directory, no memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let flags = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags)?;
    Ok(())
}
