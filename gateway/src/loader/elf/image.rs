//! The tables of an ELF file, read the way the dynamic loader reads them: through the program headers and the
//! dynamic table, never through sections, which a stripped library may lack. Every access is bounded.

use object::{
    NativeEndian, Pod, U32,
    elf::{self, Dyn64, FileHeader64, ProgramHeader64, Sym64, Vernaux, Verneed},
    pod::{from_bytes, slice_from_bytes},
    read::elf::{FileHeader as _, GnuHashTable, HashTable},
};

use super::ElfError;

const ENDIAN: NativeEndian = NativeEndian;
type Header = FileHeader64<NativeEndian>;
/// More than any real library has; keeps a hostile table from costing time.
const MAX_SYMBOLS: usize = 1 << 20;
const MAX_VERSIONS: usize = 1 << 12;

pub(super) struct Image<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    pub(super) segments: &'a [ProgramHeader64<NativeEndian>],
    dynamic: &'a [Dyn64<NativeEndian>],
}

impl<'a> Image<'a> {
    /// Reads the tables of a shared library for `machine`, and checks that they lie where they can be read.
    pub(super) fn parse(bytes: &'a [u8], machine: elf::Machine) -> Result<Self, ElfError> {
        check_magic(bytes)?;
        check_identity(bytes)?;
        let (header, _) = from_bytes::<Header>(bytes).map_err(|()| truncated("an ELF header", 64, bytes))?;
        let found = header.e_machine.get(ENDIAN);
        if found != machine {
            return Err(ElfError::Machine { found: machine_name(found), expected: machine_name(machine) });
        }
        check_kind(header.e_type.get(ENDIAN))?;
        let size = u64::from(header.e_phnum.get(ENDIAN)) * size_of::<ProgramHeader64<NativeEndian>>() as u64;
        let needed = header.e_phoff.get(ENDIAN).saturating_add(size);
        if needed > bytes.len() as u64 {
            return Err(truncated("the program header table", needed, bytes));
        }
        let segments = header
            .program_headers(ENDIAN, bytes)
            .map_err(|_| ElfError::Damaged("its program headers cannot be read"))?;
        let mut image = Self { bytes, header, segments, dynamic: &[] };
        // A file that was cut off is told as cut off, so sizes come before what the bytes mean.
        image.check_segments()?;
        image.check_sections()?;
        image.dynamic = image.dynamic_table()?;
        image.check_dynamic()?;
        Ok(image)
    }

    /// Every segment that will be mapped lies inside the file, in order, and not on top of another.
    fn check_segments(&self) -> Result<(), ElfError> {
        let mut end_of_last = 0;
        for segment in self.loaded() {
            let (address, in_memory) = (segment.p_vaddr.get(ENDIAN), segment.p_memsz.get(ENDIAN));
            let in_file = segment.p_filesz.get(ENDIAN);
            let needed = segment.p_offset.get(ENDIAN).saturating_add(in_file);
            if needed > self.bytes.len() as u64 {
                return Err(truncated("a segment", needed, self.bytes));
            }
            if in_file > in_memory || address < end_of_last {
                return Err(ElfError::Damaged("its segments overlap"));
            }
            end_of_last = address
                .checked_add(in_memory)
                .filter(|end| *end < 1 << 47)
                .ok_or(ElfError::Damaged("a segment is larger than memory can be"))?;
        }
        if end_of_last == 0 {
            return Err(ElfError::Damaged("it has no segment to load"));
        }
        Ok(())
    }

    /// The section table is not needed to load the library, but it comes last in the file: when it is cut off, so may
    /// be more.
    fn check_sections(&self) -> Result<(), ElfError> {
        let count = u64::from(self.header.e_shnum.get(ENDIAN));
        let size = count * u64::from(self.header.e_shentsize.get(ENDIAN));
        let needed = self.header.e_shoff.get(ENDIAN).saturating_add(size);
        if needed > self.bytes.len() as u64 {
            return Err(truncated("the section table", needed, self.bytes));
        }
        Ok(())
    }

    /// Every table that the loader follows from the dynamic table lies inside a segment.
    fn check_dynamic(&self) -> Result<(), ElfError> {
        let sized = [
            (elf::DT_STRTAB, elf::DT_STRSZ, "its string table lies outside of its segments"),
            (elf::DT_RELA, elf::DT_RELASZ, "its relocation table lies outside of its segments"),
            (elf::DT_JMPREL, elf::DT_PLTRELSZ, "its jump table lies outside of its segments"),
            (elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ, "its constructor table lies outside of its segments"),
            (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ, "its destructor table lies outside of its segments"),
        ];
        for (start, size, damage) in sized {
            let Some(address) = self.dynamic(start) else { continue };
            if self.at(address, self.dynamic(size).unwrap_or(1)).is_none() {
                return Err(ElfError::Damaged(damage));
            }
        }
        let pointers = [elf::DT_SYMTAB, elf::DT_HASH, elf::DT_GNU_HASH, elf::DT_VERSYM, elf::DT_VERNEED];
        if pointers
            .into_iter()
            .filter_map(|tag| self.dynamic(tag))
            .any(|address| self.from(address).is_none())
        {
            return Err(ElfError::Damaged("a symbol table lies outside of its segments"));
        }
        Ok(())
    }

    /// Value of the dynamic entry `tag`. Of several, the loader takes the last.
    pub(super) fn dynamic(&self, tag: elf::DynamicTag) -> Option<u64> {
        let entry = self.dynamic.iter().rfind(|entry| entry.d_tag.get(ENDIAN) == tag)?;
        Some(entry.d_val.get(ENDIAN))
    }

    /// The values of all dynamic entries `tag`.
    pub(super) fn all_dynamic(&self, tag: elf::DynamicTag) -> impl Iterator<Item = u64> {
        let entries = self.dynamic.iter().filter(move |entry| entry.d_tag.get(ENDIAN) == tag);
        entries.map(|entry| entry.d_val.get(ENDIAN))
    }

    /// A string of the dynamic string table.
    pub(super) fn text(&self, offset: u64) -> Option<&'a str> {
        let table = self.at(self.dynamic(elf::DT_STRTAB)?, self.dynamic(elf::DT_STRSZ)?)?;
        let text = table.get(usize::try_from(offset).ok()?..)?;
        let end = text.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&text[..end]).ok()
    }

    /// Whether `dlsym` would find a variable `name` of at least `least` bytes.
    pub(super) fn exports_object(&self, name: &str, least: usize) -> Result<bool, ElfError> {
        let symbols = self.symbols()?;
        let Some(symbol) = symbols.iter().find(|symbol| {
            symbol.st_shndx.get(ENDIAN) != elf::SHN_UNDEF
                && matches!(symbol.st_bind(), elf::STB_GLOBAL | elf::STB_WEAK | elf::STB_GNU_UNIQUE)
                && self.text(u64::from(symbol.st_name.get(ENDIAN))) == Some(name)
        }) else {
            return Ok(false);
        };
        let (address, size) = (symbol.st_value.get(ENDIAN), symbol.st_size.get(ENDIAN));
        let is_inside = self.loaded().any(|segment| {
            let start = segment.p_vaddr.get(ENDIAN);
            let end = start.saturating_add(segment.p_memsz.get(ENDIAN));
            address >= start && address.saturating_add(size) <= end
        });
        if symbol.st_type() != elf::STT_OBJECT || size < least as u64 || !is_inside {
            return Err(ElfError::Damaged("its entry symbol does not name data of the library"));
        }
        Ok(true)
    }

    /// Names of all symbol versions that it needs from other libraries, `GLIBC_2.34` for instance.
    pub(super) fn needed_versions(&self) -> Result<impl Iterator<Item = &'a str>, ElfError> {
        let mut names = Vec::new();
        let mut next = self.dynamic(elf::DT_VERNEED);
        while let Some(address) = next {
            let damaged = ElfError::Damaged("its table of needed versions cannot be followed");
            let library: &Verneed<NativeEndian> = self.one(address).ok_or(damaged.clone())?;
            let mut auxiliary = Some(address.wrapping_add(u64::from(library.vn_aux.get(ENDIAN))));
            while let Some(address) = auxiliary {
                let version: &Vernaux<NativeEndian> = self.one(address).ok_or(damaged.clone())?;
                names.extend(self.text(u64::from(version.vna_name.get(ENDIAN))));
                auxiliary = follow(address, version.vna_next);
                if names.len() > MAX_VERSIONS {
                    return Err(damaged);
                }
            }
            next = follow(address, library.vn_next);
        }
        Ok(names.into_iter())
    }

    /// Size of the thread-local storage of each thread.
    pub(super) fn thread_local_bytes(&self) -> u64 {
        let of_type = |segment: &&ProgramHeader64<_>| segment.p_type.get(ENDIAN) == elf::PT_TLS;
        self.segments.iter().filter(of_type).map(|segment| segment.p_memsz.get(ENDIAN)).max().unwrap_or(0)
    }

    /// Bytes of the segments that hold notes.
    pub(super) fn notes(&self) -> impl Iterator<Item = (u64, Option<&'a [u8]>)> {
        self.segments.iter().filter(|segment| segment.p_type.get(ENDIAN) == elf::PT_NOTE).map(|segment| {
            let start = usize::try_from(segment.p_offset.get(ENDIAN)).ok();
            let length = usize::try_from(segment.p_filesz.get(ENDIAN)).ok();
            let range = start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?));
            (segment.p_align.get(ENDIAN), range.and_then(|range| self.bytes.get(range)))
        })
    }

    fn loaded(&self) -> impl Iterator<Item = &'a ProgramHeader64<NativeEndian>> {
        self.segments.iter().filter(|segment| segment.p_type.get(ENDIAN) == elf::PT_LOAD)
    }

    fn dynamic_table(&self) -> Result<&'a [Dyn64<NativeEndian>], ElfError> {
        let segment = self.segments.iter().rfind(|segment| segment.p_type.get(ENDIAN) == elf::PT_DYNAMIC);
        let segment = segment.ok_or(ElfError::Damaged("it has no dynamic table"))?;
        let bytes = self.at(segment.p_vaddr.get(ENDIAN), segment.p_filesz.get(ENDIAN));
        let bytes = bytes.ok_or(ElfError::Damaged("its dynamic table lies outside of its segments"))?;
        let count = bytes.len() / size_of::<Dyn64<NativeEndian>>();
        let (entries, _) = slice_from_bytes::<Dyn64<NativeEndian>>(bytes, count)
            .map_err(|()| ElfError::Damaged("its dynamic table is not aligned"))?;
        let end = entries.iter().position(|entry| entry.d_tag.get(ENDIAN) == elf::DT_NULL);
        // Without the closing entry the loader would read on into whatever follows.
        let end = end.ok_or(ElfError::Damaged("its dynamic table has no end"))?;
        Ok(&entries[..end])
    }

    /// The dynamic symbols, as many as the hash tables reach. What no hash table reaches, `dlsym` cannot find.
    fn symbols(&self) -> Result<&'a [Sym64<NativeEndian>], ElfError> {
        let damaged = ElfError::Damaged("its symbol table cannot be read");
        let count = self.symbol_count();
        let Some(address) = self.dynamic(elf::DT_SYMTAB) else { return Ok(&[]) };
        let bytes = self.from(address).ok_or(damaged.clone())?;
        let count = count.unwrap_or(0).min(MAX_SYMBOLS);
        slice_from_bytes(bytes, count).map(|(symbols, _)| symbols).map_err(|()| damaged)
    }

    fn symbol_count(&self) -> Option<usize> {
        let gnu = self.dynamic(elf::DT_GNU_HASH).and_then(|address| self.from(address));
        let gnu = gnu.and_then(|bytes| GnuHashTable::<Header>::parse(ENDIAN, bytes).ok());
        if let Some(count) = gnu.and_then(|table| table.symbol_table_length(ENDIAN)) {
            return usize::try_from(count).ok();
        }
        let table = HashTable::<Header>::parse(ENDIAN, self.from(self.dynamic(elf::DT_HASH)?)?).ok()?;
        usize::try_from(table.symbol_table_length()).ok()
    }

    /// `length` bytes that the file holds for `address`.
    fn at(&self, address: u64, length: u64) -> Option<&'a [u8]> {
        self.from(address)?.get(..usize::try_from(length).ok()?)
    }

    /// What the file holds for `address`, up to the end of its segment.
    fn from(&self, address: u64) -> Option<&'a [u8]> {
        self.loaded().find_map(|segment| {
            let into = address.checked_sub(segment.p_vaddr.get(ENDIAN))?;
            let size = segment.p_filesz.get(ENDIAN);
            let offset = segment.p_offset.get(ENDIAN);
            let start = usize::try_from(offset.checked_add(into)?).ok()?;
            let end = usize::try_from(offset.checked_add(size)?).ok()?;
            (into < size).then(|| self.bytes.get(start..end))?
        })
    }

    fn one<T: Pod>(&self, address: u64) -> Option<&'a T> {
        from_bytes(self.from(address)?).ok().map(|(value, _)| value)
    }
}

/// Address of the next entry of a chain, whose `step` is 0 at its end. It only goes forward, so it ends.
fn follow(address: u64, step: U32<NativeEndian>) -> Option<u64> {
    match step.get(ENDIAN) {
        0 => None,
        step => address.checked_add(u64::from(step)),
    }
}

fn check_magic(bytes: &[u8]) -> Result<(), ElfError> {
    let known: [(&[u8], &str); 8] = [
        (b"!<arch>", "a static library (an archive)"),
        (b"#!", "a script"),
        (b"MZ", "a Windows library or program"),
        (b"\xcf\xfa\xed\xfe", "a macOS library or program"),
        (b"\xca\xfe\xba\xbe", "a macOS universal file, or Java"),
        (b"\x1f\x8b", "a compressed file (gzip)"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\0asm", "a WebAssembly module"),
    ];
    if bytes.is_empty() {
        Err(ElfError::Empty)
    } else if bytes.starts_with(&elf::ELFMAG) {
        Ok(())
    } else if elf::ELFMAG.starts_with(bytes) {
        Err(truncated("an ELF header", 64, bytes))
    } else if let Some((_, kind)) = known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Err(ElfError::NotElf(kind))
    } else if is_text(&bytes[..bytes.len().min(512)]) {
        Err(ElfError::NotElf("a text file"))
    } else {
        Err(ElfError::NotElf("a file of unknown kind"))
    }
}

/// Class and byte order: what the rest of the header is read by.
fn check_identity(bytes: &[u8]) -> Result<(), ElfError> {
    let (Some(&class), Some(&data)) = (bytes.get(4), bytes.get(5)) else {
        return Err(truncated("an ELF header", 64, bytes));
    };
    let little = elf::ELFDATA2LSB.0;
    match (class, data) {
        (2, data) if data == little => Ok(()),
        (2, 2) => Err(ElfError::Endianness),
        (1, _) => Err(ElfError::Class { found: 32 }),
        _ => Err(ElfError::Damaged("its ELF header is nonsense")),
    }
}

fn check_kind(kind: elf::FileType) -> Result<(), ElfError> {
    match kind {
        elf::ET_DYN => Ok(()),
        elf::ET_EXEC => Err(ElfError::Kind("an executable")),
        elf::ET_REL => Err(ElfError::Kind("an object file")),
        elf::ET_CORE => Err(ElfError::Kind("a core dump")),
        _ => Err(ElfError::Damaged("its type is nonsense")),
    }
}

fn machine_name(machine: elf::Machine) -> String {
    match machine {
        elf::EM_X86_64 => "x86_64".to_owned(),
        elf::EM_AARCH64 => "aarch64".to_owned(),
        elf::EM_386 => "x86 (32-bit)".to_owned(),
        elf::EM_ARM => "arm (32-bit)".to_owned(),
        elf::EM_RISCV => "riscv".to_owned(),
        elf::EM_PPC64 => "powerpc64".to_owned(),
        elf::EM_S390 => "s390".to_owned(),
        elf::EM_LOONGARCH => "loongarch".to_owned(),
        elf::Machine(number) => format!("machine {number}"),
    }
}

fn is_text(bytes: &[u8]) -> bool {
    let valid = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    // The last character may be cut in the middle.
    valid + 4 > bytes.len()
        && !bytes.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace())
}

fn truncated(what: &'static str, needed: u64, bytes: &[u8]) -> ElfError {
    ElfError::Truncated { what, needed, size: bytes.len() as u64 }
}
