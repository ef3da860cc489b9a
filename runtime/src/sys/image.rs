//! The executable that this process runs, mapped anew from another file with the same content.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::check;

/// A loadable part of the executable, as its program header describes it; addresses of this process.
struct Segment {
    start: usize,
    /// Bytes from `start` that come from the file.
    from_file: usize,
    offset: usize,
    protection: libc::c_int,
}

impl Segment {
    /// First byte and length of the whole pages that map the file.
    fn pages(&self, page: usize) -> (usize, usize) {
        let first = self.start & !(page - 1);
        (first, (self.start + self.from_file).next_multiple_of(page) - first)
    }
}

/// What the program headers tell.
struct Image {
    /// Bytes of a page of memory.
    page: usize,
    segments: Vec<Segment>,
    /// First page and bytes of what becomes read-only after relocation; the linker puts it on pages of its own.
    relocated: (usize, usize),
}

/// Let the kernel take `file` for this process' executable instead of the one it was started from. Its content
/// must be the same, its file another (say of another mount).
///
/// # Errors
/// EINVAL where this is not a statically linked executable, EPERM without CAP_SYS_ADMIN and CAP_CHECKPOINT_RESTORE,
/// EBUSY where the first executable is still mapped somewhere. The process goes on as it was after any of them.
pub(crate) fn replace(file: BorrowedFd<'_>) -> io::Result<()> {
    let image = own()?;
    for segment in &image.segments {
        let (first, length) = segment.pages(image.page);
        if segment.protection & libc::PROT_WRITE == 0 {
            let offset = segment.offset & !(image.page - 1);
            map_again(first, length, segment.protection, file, offset)?;
        } else {
            move_to_memory(first, length)?;
        }
    }
    let (first, length) = image.relocated;
    if length > 0 {
        // SAFETY: the pages lie in a segment that was just replaced by the same bytes, and the C library had made
        // them read-only before.
        check(unsafe { libc::mprotect(first as *mut _, length, libc::PROT_READ) }.into())?;
    }
    set_executable(file)
}

/// `struct prctl_mm_map`: where the kernel looks for a program's parts when it describes the process in /proc.
#[repr(C)]
struct MemoryMap {
    code: [u64; 2],
    data: [u64; 2],
    heap: [u64; 2],
    stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
    auxiliary: u64,
    auxiliary_size: u32,
    executable: u32,
}

/// By the option that takes the whole map, all of it as it is now but for the file: the one for the file alone
/// asks for CAP_SYS_RESOURCE, this one for CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE in the own user namespace.
fn set_executable(file: BorrowedFd<'_>) -> io::Result<()> {
    let stat = super::files::read_text("/proc/self/stat")?;
    // Numbered as in proc_pid_stat(5); what follows the name, which may hold anything, is number 3.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().collect::<Vec<&str>>());
    let fields = fields.unwrap_or_default();
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let field = |number: usize| {
        fields.get(number - 3).and_then(|field| field.parse::<u64>().ok()).ok_or_else(invalid)
    };
    // SAFETY: an increment of 0 tells the end of the heap and changes nothing.
    let end_of_heap = unsafe { libc::sbrk(0) } as u64;
    let map = MemoryMap {
        code: [field(26)?, field(27)?],
        data: [field(45)?, field(46)?],
        heap: [field(47)?, end_of_heap],
        stack: field(28)?,
        arguments: [field(48)?, field(49)?],
        environment: [field(50)?, field(51)?],
        auxiliary: 0,
        auxiliary_size: 0,
        executable: file.as_raw_fd() as u32,
    };
    // SAFETY: the map has the kernel's layout and its stated size, and is only read.
    let result = unsafe {
        libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0)
    };
    check(result.into()).map(drop)
}

/// Read-only pages, code among them: the same bytes from `file`.
fn map_again(
    first: usize,
    length: usize,
    protection: libc::c_int,
    file: BorrowedFd<'_>,
    offset: usize,
) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    // SAFETY: the pages hold what the caller's file holds, nobody can have written to them, and the kernel
    // replaces them in one step; there is no other thread that could run on them meanwhile.
    let mapped = unsafe {
        libc::mmap(first as *mut _, length, protection, flags, file.as_raw_fd(), offset as libc::off_t)
    };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Pages that were written to since the start: a copy that belongs to no file takes their place.
fn move_to_memory(first: usize, length: usize) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: asks for new memory at an address of the kernel's choice.
    let copy = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if copy == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both areas are `length` bytes long, mapped and apart. Nothing is stored in the program's data
    // between the copy and the move: there is one thread, it is here, and errno lives elsewhere (a thread's own
    // storage is not in the executable's pages).
    let moved = unsafe {
        ptr::copy_nonoverlapping(first as *const u8, copy.cast::<u8>(), length);
        libc::mremap(copy, length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, first)
    };
    if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// From the program headers that the kernel points every program to.
fn own() -> io::Result<Image> {
    // SAFETY: reads the auxiliary vector.
    let told = |kind| unsafe { libc::getauxval(kind) } as usize;
    let (address, count, page) = (told(libc::AT_PHDR), told(libc::AT_PHNUM), told(libc::AT_PAGESZ));
    if address == 0 || page == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: AT_PHDR and AT_PHNUM describe the headers, which stay mapped and unchanged.
    let headers = unsafe { std::slice::from_raw_parts(address as *const libc::Elf64_Phdr, count) };
    let find = |kind: u32| headers.iter().find(|header| header.p_type == kind);
    // A dynamic executable has more objects mapped than its own; there the slow way does.
    let own = find(libc::PT_PHDR).filter(|_| find(libc::PT_INTERP).is_none());
    let bias = address - own.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?.p_vaddr as usize;
    let protection = |flags: u32| {
        [(libc::PF_R, libc::PROT_READ), (libc::PF_W, libc::PROT_WRITE), (libc::PF_X, libc::PROT_EXEC)]
            .iter()
            .fold(0, |sum, (flag, bit)| if flags & flag != 0 { sum | bit } else { sum })
    };
    let loadable = headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_filesz > 0);
    let segments = loadable.map(|header| Segment {
        start: bias + header.p_vaddr as usize,
        from_file: header.p_filesz as usize,
        offset: header.p_offset as usize,
        protection: protection(header.p_flags),
    });
    let relocated = find(libc::PT_GNU_RELRO).map_or((0, 0), |header| {
        let first = (bias + header.p_vaddr as usize) & !(page - 1);
        let end = (bias + (header.p_vaddr + header.p_memsz) as usize) & !(page - 1);
        (first, end.saturating_sub(first))
    });
    Ok(Image { page, segments: segments.collect(), relocated })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    #[test]
    fn an_executable_with_a_loader_stays_what_it_is() {
        let own = std::fs::File::open("/proc/self/exe").expect("own executable");
        let error = super::replace(own.as_fd()).expect_err("tests are linked dynamically");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
