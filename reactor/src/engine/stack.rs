//! Memory for stacks: mapped many at once, guarded one by one, used again, and given back.
//!
//! **Guards.** Below each stack lies a guard that must not be touched. `MADV_GUARD_INSTALL` (Linux 6.13) marks it in the
//! page tables, so that a hundred thousand stacks lie in some tens of memory mappings. Where the kernel has it not,
//! `mprotect` splits the mapping, two for each stack: then they are counted, and refused short of `vm.max_map_count`,
//! since at that limit every `mmap` of the process fails.
//!
//! **Memory.** A stack takes the pages that were touched: the topmost for a shallow coroutine. One that went deep gives
//! what is below [`KEPT_BYTES`] back when its coroutine ends, and beyond [`WARM_MAX`] stacks at rest all of it.
//!
//! What it is not: a limit. Stacks end where memory or address space does, and that is an error.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::StackError;

/// `MADV_GUARD_INSTALL` of `include/uapi/asm-generic/mman-common.h`.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// Pages of a guard at the least. C code does not probe large frames as rustc does: several pages catch most.
const GUARD_PAGES_MIN: usize = 4;

/// Address space that is mapped at once, for as many stacks as fit, and one at the least.
const CHUNK_SIZE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a stack that stay when its coroutine ends: a request's work, for which the next would only take new pages.
const KEPT_BYTES: usize = 64 * 1024;

/// Stacks at rest that keep their pages; further ones give all of them back.
const WARM_MAX: usize = 256;

/// Words looked at to tell whether a page was used.
const SAMPLES_PER_PAGE: usize = 32;

/// Memory mappings left to the rest of the program where each stack takes two.
const MAPPINGS_RESERVED: usize = 4096;

/// `vm.max_map_count` where it cannot be read: the kernel's default (Documentation/admin-guide/sysctl/vm.rst).
const MAX_MAP_COUNT_DEFAULT: usize = 65_530;

/// Whether the kernel has refused to mark a guard in the page tables.
static GUARD_BY_MPROTECT: AtomicBool = AtomicBool::new(false);

/// Stacks in the process that are guarded by mappings.
static MPROTECTED_COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { classes: Vec::new() }) };
}

/// A stack in use; dropped, it rests until the next coroutine.
pub(super) struct Stack {
    top: NonZeroUsize,
    layout: Layout,
    // It goes back to the pool of the thread that it came from.
    _here: PhantomData<*const ()>,
}

/// How large a stack is, and its guard; whole pages.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Layout {
    size_bytes: usize,
    guard_bytes: usize,
}

impl Layout {
    fn new(wanted_bytes: usize) -> Option<Layout> {
        let page = rustix::param::page_size();
        let pages = wanted_bytes.checked_next_multiple_of(page)? / page;
        // An odd count of pages from one stack to the next: with an even one the pages that coroutines use most would
        // share a few sets of the processor's translation cache, whose index is a page number's low bits.
        let guard_pages =
            GUARD_PAGES_MIN + usize::from(pages.is_multiple_of(2) == GUARD_PAGES_MIN.is_multiple_of(2));
        let layout = Layout { size_bytes: pages * page, guard_bytes: guard_pages * page };
        layout.size_bytes.checked_add(layout.guard_bytes).map(|_| layout)
    }

    fn stride_bytes(self) -> usize {
        self.size_bytes + self.guard_bytes
    }
}

impl Stack {
    /// A stack of at least `wanted_bytes`.
    pub(super) fn new(wanted_bytes: usize) -> Result<Stack, StackError> {
        let too_large = || StackError::Memory(io::ErrorKind::OutOfMemory.into());
        let layout = Layout::new(wanted_bytes).ok_or_else(too_large)?;
        let top = POOL.with_borrow_mut(|pool| pool.class(layout).take())?;
        Ok(Stack { top, layout, _here: PhantomData })
    }

    /// One past its last byte, where it begins: it grows down.
    pub(super) fn top(&self) -> NonZeroUsize {
        self.top
    }

    /// Its lowest byte that may be used: the guard ends here.
    pub(super) fn bottom(&self) -> usize {
        self.top.get() - self.layout.size_bytes
    }

    /// Where its guard begins.
    pub(super) fn limit(&self) -> NonZeroUsize {
        let limit = self.bottom() - self.layout.guard_bytes;
        NonZeroUsize::new(limit).expect("nothing is mapped at address zero")
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.layout.size_bytes
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // Without a pool the thread is at its end, and has left the memory of stacks in use where it is.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.class(self.layout).give_back(self.top);
            pool.trim();
        });
    }
}

/// The stacks of a thread.
struct Pool {
    classes: Vec<Class>,
}

/// Stacks of one size.
struct Class {
    layout: Layout,
    /// The tops of stacks at rest, the last one used last.
    resting: Vec<NonZeroUsize>,
    used_count: usize,
    chunks: Vec<Mapping>,
    /// Stacks of the last chunk that were never used.
    unused_count: usize,
}

impl Pool {
    fn class(&mut self, layout: Layout) -> &mut Class {
        let index = self.classes.iter().position(|class| class.layout == layout).unwrap_or_else(|| {
            self.classes.push(Class {
                layout,
                resting: Vec::new(),
                used_count: 0,
                chunks: Vec::new(),
                unused_count: 0,
            });
            self.classes.len() - 1
        });
        &mut self.classes[index]
    }

    /// Gives everything back once no stack is in use: the run has ended.
    fn trim(&mut self) {
        if self.classes.iter().all(|class| class.used_count == 0) {
            self.classes.clear();
        }
    }
}

impl Class {
    fn take(&mut self) -> Result<NonZeroUsize, StackError> {
        let top = match self.resting.pop() {
            Some(top) => top,
            None => self.take_unused()?,
        };
        self.used_count += 1;
        Ok(top)
    }

    fn take_unused(&mut self) -> Result<NonZeroUsize, StackError> {
        if self.unused_count == 0 {
            let count = (CHUNK_SIZE_BYTES / self.layout.stride_bytes()).max(1);
            // Room for all of its stacks to rest, so that giving one back never allocates.
            self.resting.reserve(count + self.used_count);
            self.chunks.push(Mapping::new(count * self.layout.stride_bytes()).map_err(StackError::Memory)?);
            self.unused_count = count;
        }
        let chunk = self.chunks.last_mut().expect("a chunk was just mapped, or has unused stacks");
        let limit = chunk.address + (self.unused_count - 1) * self.layout.stride_bytes();
        chunk.guard(limit, self.layout.guard_bytes)?;
        self.unused_count -= 1;
        Ok(NonZeroUsize::new(limit + self.layout.stride_bytes()).expect("nothing is mapped at address zero"))
    }

    fn give_back(&mut self, top: NonZeroUsize) {
        self.used_count -= 1;
        if self.resting.len() >= WARM_MAX {
            forget_pages(top.get() - self.layout.size_bytes, self.layout.size_bytes);
        } else if went_deep(top, self.layout.size_bytes) {
            forget_pages(top.get() - self.layout.size_bytes, self.layout.size_bytes - KEPT_BYTES);
        }
        self.resting.push(top);
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        if self.used_count > 0 {
            // Somebody still refers to a coroutine of this thread, which is at its end.
            std::mem::forget(std::mem::take(&mut self.chunks));
        }
    }
}

/// Whether the stack that ends at `top` was used below [`KEPT_BYTES`]: then that page holds something. Pages that were
/// never touched, or given back, read as zeros.
fn went_deep(top: NonZeroUsize, size_bytes: usize) -> bool {
    let page = rustix::param::page_size();
    if size_bytes < KEPT_BYTES + page {
        return false;
    }
    let deep_page = top.get() - KEPT_BYTES - page;
    let step = page / SAMPLES_PER_PAGE;
    (0..SAMPLES_PER_PAGE).any(|index| {
        let word = ptr::with_exposed_provenance::<usize>(deep_page + index * step);
        // SAFETY: the page is one of a stack of ours that is at rest, mapped and readable, and the word aligned in it.
        unsafe { word.read_volatile() != 0 }
    })
}

/// Gives the memory of whole pages back; they read as zeros then. `MADV_FREE` would do so later, if ever, and leave the
/// memory counted as ours.
fn forget_pages(address: usize, size_bytes: usize) {
    // SAFETY: the range is that of a stack of ours that is at rest, so nobody needs what is in it.
    unsafe { libc::madvise(ptr::with_exposed_provenance_mut(address), size_bytes, libc::MADV_DONTNEED) };
}

/// A range of memory of our own.
struct Mapping {
    address: usize,
    size_bytes: usize,
    mprotected_count: usize,
}

impl Mapping {
    fn new(size_bytes: usize) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: a fresh mapping at an address of the kernel's choosing touches nobody's memory.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), size_bytes, access, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A huge page would take 2 MiB for the one page that a coroutine needs. Refused, it is only memory.
        // SAFETY: the range is the mapping's, and its content does not change.
        unsafe { libc::madvise(mapped, size_bytes, libc::MADV_NOHUGEPAGE) };
        Ok(Mapping { address: mapped.expose_provenance(), size_bytes, mprotected_count: 0 })
    }

    /// Makes the pages from `address` on, which nobody has used yet, untouchable.
    fn guard(&mut self, address: usize, size_bytes: usize) -> Result<(), StackError> {
        let pages = ptr::with_exposed_provenance_mut(address);
        if !GUARD_BY_MPROTECT.load(Ordering::Relaxed) {
            // SAFETY: the range is in this mapping, below a stack that nobody has got yet.
            if unsafe { libc::madvise(pages, size_bytes, MADV_GUARD_INSTALL) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(StackError::Memory(error));
            }
            // Not known to this kernel.
            GUARD_BY_MPROTECT.store(true, Ordering::Relaxed);
        }
        let max_map_count = max_map_count();
        if MPROTECTED_COUNT.load(Ordering::Relaxed) >= max_map_count.saturating_sub(MAPPINGS_RESERVED) / 2 {
            return Err(StackError::Mappings { max_map_count });
        }
        // SAFETY: as above.
        if unsafe { libc::mprotect(pages, size_bytes, libc::PROT_NONE) } != 0 {
            return Err(StackError::Memory(io::Error::last_os_error()));
        }
        MPROTECTED_COUNT.fetch_add(1, Ordering::Relaxed);
        self.mprotected_count += 1;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        MPROTECTED_COUNT.fetch_sub(self.mprotected_count, Ordering::Relaxed);
        // SAFETY: the mapping is ours, and no stack in it is in use (`Class::drop`).
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.address), self.size_bytes) };
    }
}

fn max_map_count() -> usize {
    static READ: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *READ.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        text.trim().parse().unwrap_or(MAX_MAP_COUNT_DEFAULT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(address: usize) {
        // SAFETY: the tests name addresses in stacks that they hold.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(1) };
    }

    fn resident_pages(from: usize, size_bytes: usize) -> usize {
        let page = rustix::param::page_size();
        let mut present = vec![0u8; size_bytes / page];
        // SAFETY: the vector has a byte for each page of the range.
        let result = unsafe {
            libc::mincore(ptr::with_exposed_provenance_mut(from), size_bytes, present.as_mut_ptr())
        };
        assert_eq!(result, 0);
        present.iter().filter(|&&present| present & 1 != 0).count()
    }

    #[test]
    fn a_stack_that_cannot_be_had_is_an_error() {
        for size in [1 << 50, usize::MAX, usize::MAX - 4096] {
            assert!(matches!(Stack::new(size), Err(StackError::Memory(_))), "{size}");
        }
        let one = Stack::new(64 * 1024).unwrap();
        touch(one.bottom());
        touch(one.top().get() - 1);
    }

    #[test]
    fn stacks_do_not_overlap_and_are_used_again() {
        let stacks: Vec<_> = (0..100).map(|_| Stack::new(128 * 1024).unwrap()).collect();
        let mut ranges: Vec<_> =
            stacks.iter().map(|stack| (stack.limit().get(), stack.top().get())).collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:x?}");
        let mut stacks = stacks;
        let last = stacks.pop().unwrap().top();
        assert_eq!(Stack::new(128 * 1024).unwrap().top(), last);
    }

    #[test]
    fn a_stack_that_went_deep_gives_its_pages_back_and_a_shallow_one_keeps_them() {
        let _other = Stack::new(256 * 1024).unwrap(); // or the pool would be let go of as a whole
        let page = rustix::param::page_size();
        let stack = Stack::new(256 * 1024).unwrap();
        let (bottom, top) = (stack.bottom(), stack.top().get());
        (bottom..top).step_by(page / SAMPLES_PER_PAGE).for_each(touch);
        assert_eq!(resident_pages(bottom, 256 * 1024), 256 * 1024 / page);
        drop(stack);
        let stack = Stack::new(256 * 1024).unwrap();
        assert_eq!(stack.top().get(), top);
        assert_eq!(resident_pages(bottom, 256 * 1024 - KEPT_BYTES), 0);
        assert_eq!(resident_pages(top - KEPT_BYTES, KEPT_BYTES), KEPT_BYTES / page);
    }

    #[test]
    fn a_kernel_without_guard_marks_gets_guards_by_mprotect_and_a_limit() {
        let page = rustix::param::page_size();
        let mut mapping = Mapping::new(16 * page).unwrap();
        let before = MPROTECTED_COUNT.load(Ordering::Relaxed);
        GUARD_BY_MPROTECT.store(true, Ordering::Relaxed);
        let guarded = mapping.guard(mapping.address + 8 * page, page);
        GUARD_BY_MPROTECT.store(false, Ordering::Relaxed);
        assert!(guarded.is_ok());
        assert!(MPROTECTED_COUNT.load(Ordering::Relaxed) > before);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let guard = format!("{:x}-{:x} ---p", mapping.address + 8 * page, mapping.address + 9 * page);
        assert!(maps.contains(&guard), "{guard} in {maps}");
    }
}
