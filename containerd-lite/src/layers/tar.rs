//! Reads a tar archive as Go's archive/tar does: ustar, PAX and GNU long names. A PAX size always wins, a broken
//! PAX record is an error, and every length an archive can claim is bounded.

use crate::error::{Context, Error, Result};
use std::io::Read;

const BLOCK: usize = 512;
/// Bytes of one PAX header or GNU long name.
const MAX_EXTENSION: u64 = 1 << 20;
/// Bytes of a name or link target: what the kernel takes.
const MAX_NAME: usize = 4096;
/// Bytes of one extended attribute's value: what the kernel takes.
const MAX_XATTR: usize = 64 << 10;
/// Largest file.
const MAX_SIZE: u64 = 1 << 43;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Char,
    Block,
    Fifo,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

pub(super) struct Archive<R> {
    reader: R,
    /// Bytes of the current entry not read yet, and the padding after them.
    left: u64,
    padding: u64,
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::invalid(format_args!("archive/tar: {what}"))
}

/// What PAX headers and GNU long names said ahead of an entry.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(reader: R) -> Archive<R> {
        Archive { reader, left: 0, padding: 0 }
    }

    /// The next entry; what was not read of the last one is passed over.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(broken)?;
            match header.entry_type().as_byte() {
                b'x' => {
                    let data = self.extension(size)?;
                    extensions.read_pax(&data)?;
                }
                // Global headers carry comments, such as a commit id.
                b'g' => drop(self.extension(size)?),
                b'L' => extensions.name = Some(until_nul(self.extension(size)?)),
                b'K' => extensions.link = Some(until_nul(self.extension(size)?)),
                _ => {
                    let entry = extensions.entry(&header, size)?;
                    (self.left, self.padding) = (entry.size, padding(entry.size));
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// The content of the current entry.
    pub(super) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// Reads to the end of the stream, so that all of it is hashed.
    pub(super) fn drain(mut self) -> Result<()> {
        std::io::copy(&mut self.reader, &mut std::io::sink()).step(|| "read the rest of the layer")?;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<()> {
        let skip = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let skipped =
            std::io::copy(&mut (&mut self.reader).take(skip), &mut std::io::sink()).step(|| "read layer")?;
        if skipped < skip { Err(broken("unexpected EOF")) } else { Ok(()) }
    }

    /// A checked header block, or nothing at the end of the archive.
    fn header(&mut self) -> Result<Option<tar::Header>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            return match self.block()? {
                Some(second) if second.iter().any(|byte| *byte != 0) => Err(broken("invalid tar header")),
                _ => Ok(None),
            };
        }
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        let stored = header.cksum().map_err(|_| broken("invalid tar header"))?;
        let sum = |signed: bool| -> i64 {
            let field = 148..156;
            block
                .iter()
                .enumerate()
                .map(|(at, byte)| if field.contains(&at) { b' ' } else { *byte })
                .map(|byte| if signed { i64::from(byte as i8) } else { i64::from(byte) })
                .sum()
        };
        if i64::from(stored) != sum(false) && i64::from(stored) != sum(true) {
            return Err(broken("invalid tar header: wrong checksum"));
        }
        Ok(Some(header))
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(broken("unexpected EOF")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::step("read layer", error)),
            }
        }
        Ok(Some(block))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(broken(format_args!("extended header of {size} bytes")));
        }
        let mut data = vec![0; size as usize];
        self.reader.read_exact(&mut data).step(|| "read layer")?;
        self.padding = padding(size);
        self.skip_rest()?;
        Ok(data)
    }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    data.truncate(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
    data
}

pub(super) struct Content<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let limit = buffer.len().min(usize::try_from(self.0.left).unwrap_or(usize::MAX));
        if limit == 0 {
            return Ok(0);
        }
        let read = self.0.reader.read(&mut buffer[..limit])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.0.left -= read as u64;
        Ok(read)
    }
}

impl Extensions {
    /// Records of the form `length key=value\n`, where length counts the whole record.
    fn read_pax(&mut self, mut data: &[u8]) -> Result<()> {
        let wrong = || broken("invalid PAX record");
        while !data.is_empty() {
            let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let length: usize = std::str::from_utf8(&data[..space])
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(wrong)?;
            if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
                return Err(wrong());
            }
            let record = &data[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            let key = std::str::from_utf8(&record[..equals]).map_err(|_| wrong())?;
            self.pax_record(key, &record[equals + 1..])?;
            data = &data[length..];
        }
        Ok(())
    }

    fn pax_record(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let wrong = || broken(format_args!("invalid PAX value of {key}"));
        let number =
            || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok()).ok_or_else(wrong);
        let name = || if value.contains(&0) { Err(wrong()) } else { Ok(value.to_vec()) };
        match key {
            // An empty value takes an earlier one back.
            "path" => self.name = Some(name()?).filter(|name| !name.is_empty()),
            "linkpath" => self.link = Some(name()?).filter(|name| !name.is_empty()),
            "size" => self.size = Some(number()?),
            "uid" => self.uid = Some(number()?),
            "gid" => self.gid = Some(number()?),
            "mtime" => self.mtime = Some(parse_time(value).ok_or_else(wrong)?),
            _ if key.starts_with("GNU.sparse.") => {
                return Err(Error::unimplemented("sparse files in a layer"));
            }
            _ => {
                if let Some(attribute) = key.strip_prefix("SCHILY.xattr.") {
                    if attribute.is_empty()
                        || attribute.len() > 255
                        || attribute.contains('\0')
                        || value.len() > MAX_XATTR
                    {
                        return Err(wrong());
                    }
                    self.xattrs.push((attribute.to_owned(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn entry(self, header: &tar::Header, header_size: u64) -> Result<Entry> {
        let name = self.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = self
            .link
            .unwrap_or_else(|| header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default());
        if name.len() > MAX_NAME || link.len() > MAX_NAME || name.contains(&0) || link.contains(&0) {
            return Err(broken("a name that is too long or has a NUL"));
        }
        let kind = match header.entry_type().as_byte() {
            // Before ustar a folder was a file whose name ends in a slash.
            b'0' | 0 | b'7' if name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(Error::unimplemented("sparse files in a layer")),
            other => return Err(broken(format_args!("unhandled tar header type {other}"))),
        };
        let id = |extended: Option<u64>, plain: std::io::Result<u64>| {
            let id = extended.map_or_else(|| plain.map_err(broken), Ok)?;
            u32::try_from(id).map_err(|_| broken(format_args!("owner {id} is out of range")))
        };
        let size = if kind == Kind::File { self.size.unwrap_or(header_size) } else { 0 };
        if size > MAX_SIZE {
            return Err(broken(format_args!("file of {size} bytes")));
        }
        let seconds = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
        let device =
            |number: std::io::Result<Option<u32>>| number.map_err(broken).map(Option::unwrap_or_default);
        let is_device = matches!(kind, Kind::Char | Kind::Block);
        Ok(Entry {
            kind,
            size,
            mode: header.mode().map_err(broken)? & 0o7777,
            uid: id(self.uid, header.uid())?,
            gid: id(self.gid, header.gid())?,
            mtime: self.mtime.unwrap_or((seconds, 0)),
            device: if is_device {
                (device(header.device_major())?, device(header.device_minor())?)
            } else {
                (0, 0)
            },
            xattrs: self.xattrs,
            name,
            link,
        })
    }
}

/// `[-]seconds[.fraction]`.
fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    // The fraction of a negative time counts towards the past.
    Some(if whole.starts_with('-') && nanos > 0 {
        (seconds.checked_sub(1)?, 1_000_000_000 - nanos)
    } else {
        (seconds, nanos)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header block and its content, padded.
    pub(crate) fn raw(kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header.as_mut_bytes()[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    /// A PAX header with these records.
    pub(crate) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        raw(b'x', b"PaxHeaders/x", b"", &data)
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut archive = Archive::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = archive.next_entry()? {
            let mut content = Vec::new();
            archive.content().read_to_end(&mut content).map_err(broken)?;
            all.push((String::from_utf8_lossy(&entry.name).into_owned(), content));
        }
        archive.drain()?;
        Ok(all)
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        read(bytes).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_pax_size_wins_so_that_nothing_is_smuggled() {
        // Outwardly 0 bytes; by PAX 512, which are an inner archive's header.
        let inner = raw(b'0', b"smuggled", b"", b"");
        let mut bytes = pax(&[("size", b"512")]);
        bytes.extend(raw(b'0', b"outer", b"", b""));
        bytes.extend(&inner);
        bytes.extend(raw(b'0', b"last", b"", b"x"));
        assert_eq!(read(&bytes).unwrap(), [("outer".into(), inner), ("last".into(), b"x".to_vec())]);
        // The other way round: header 512, PAX 0.
        let mut bytes = pax(&[("size", b"0")]);
        bytes.extend(raw(b'0', b"outer", b"", &raw(b'0', b"seen", b"", b"")));
        assert_eq!(names(&bytes), ["outer", "seen"]);
    }

    #[test]
    fn long_names_and_binary_attributes() {
        let long = "d/".repeat(90) + "f";
        let mut bytes = raw(b'L', b"././@LongLink", b"", format!("{long}\0").as_bytes());
        bytes.extend(raw(b'0', b"short", b"", b""));
        bytes.extend(pax(&[("path", b"pax"), ("SCHILY.xattr.user.a", b"a\nb\0c")]));
        bytes.extend(raw(b'0', b"short", b"", b""));
        assert_eq!(names(&bytes), [long, "pax".to_owned()]);
        let mut archive = Archive::new(bytes.as_slice());
        archive.next_entry().unwrap();
        let entry = archive.next_entry().unwrap().unwrap();
        assert_eq!(entry.xattrs, [("user.a".to_owned(), b"a\nb\0c".to_vec())]);
    }

    #[test]
    fn what_is_refused() {
        let valid = raw(b'0', b"f", b"", b"12345");
        let mut wrong_sum = valid.clone();
        wrong_sum[0] = b'g';
        let mut one_zero_block = vec![0; BLOCK];
        one_zero_block.extend(&valid);
        let mut negative = valid.clone();
        negative[124..136].copy_from_slice(&[0xff; 12]);
        let big = MAX_EXTENSION as usize + 1;
        let with = |head: Vec<u8>| [head, valid.clone()].concat();
        let cases = [
            ("cut header", valid[..100].to_vec()),
            ("cut content", valid[..BLOCK + 3].to_vec()),
            ("checksum", wrong_sum),
            ("one zero block", one_zero_block),
            ("negative size", negative),
            ("record without length", with(raw(b'x', b"x", b"", b"path=a\n"))),
            ("record too long", with(raw(b'x', b"x", b"", b"99 path=a\n"))),
            ("record too short", with(raw(b'x', b"x", b"", b"5 path=a\n"))),
            ("no equals sign", with(raw(b'x', b"x", b"", b"7 path\n"))),
            ("size is no number", with(pax(&[("size", b"-1")]))),
            ("nul in a name", with(pax(&[("path", b"a\0b")]))),
            ("name of 5000 bytes", with(pax(&[("path", &[b'a'; 5000])]))),
            ("attribute of 1 MiB", with(raw(b'x', b"x", b"", &vec![b'1'; big]))),
            ("owner 2^32", with(pax(&[("uid", b"4294967296")]))),
            ("sparse", with(pax(&[("GNU.sparse.major", b"1")]))),
            ("old sparse", raw(b'S', b"f", b"", b"")),
            ("unknown type", raw(b'Z', b"f", b"", b"")),
        ];
        for (what, bytes) in cases {
            assert!(read(&bytes).is_err(), "{what}");
        }
    }

    #[test]
    fn times() {
        for (text, want) in [
            ("1.5", Some((1, 500_000_000))),
            ("0", Some((0, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("12.1234567891", Some((12, 123_456_789))),
            ("x", None),
            ("1.-5", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), want, "{text}");
        }
    }
}
