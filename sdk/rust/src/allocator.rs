//! The allocator of a component: dlmalloc, as std has it for this target, over memory that grows
//! late and in few steps.
//!
//! Each call has an instance of its own, so what an allocator costs is what the runtime does before
//! and after it. A memory that grows costs two system calls, one to grow it and one to shrink it for
//! the next instance, for which all threads of the runtime wait; and all that an instance begins
//! with is cleared after it, 1 µs for each 64 KiB. So a component begins with little memory, a batch
//! of few rows fits into it, and a large one grows it in few steps. Left alone, dlmalloc asks for
//! 64 KiB at a time: it passes over a heap of less, and a call of one row took 14 µs instead of 6.

#![expect(
    unsafe_code,
    reason = "an allocator deals in raw memory; each block says why it may"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32;
use std::cell::{Cell, UnsafeCell};
use std::ptr;

use dlmalloc::{Allocator, Dlmalloc};

/// What the allocator asks [`Memory`] for is a multiple of this.
const GRANULARITY: usize = 1 << 10;
/// What there is for a batch of few rows, whatever else is in the memory: enough for 100 rows of ten
/// inputs and five outputs.
const ROOM: usize = 16 << 10;
/// The page of a memory.
const PAGE: usize = 1 << 16;
/// A memory grows by as much as it has, but by this at least, since what grows it is a large batch.
const SHORTEST_STEP: usize = 1 << 18;
/// And by no more than this if no more is wanted, since what a step is too long counts against the
/// limit of the memory.
const LONGEST_STEP: usize = 1 << 20;

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(
    const {
        let mut dlmalloc = Dlmalloc::new_with_allocator(Memory {
            next: Cell::new(Next::Room),
        });
        assert!(dlmalloc.set_granularity(GRANULARITY));
        dlmalloc
    },
));

/// A static, so that the linker makes the memory large enough for it, whatever else there is. It
/// could be told to add a heap, but only one of whole pages.
static ROOM_AT_FIRST: Room = Room(UnsafeCell::new([0; ROOM]));

#[repr(align(16))]
struct Room(UnsafeCell<[u8; ROOM]>);

// SAFETY: a component has one thread.
unsafe impl Sync for Room {}

struct Heap(UnsafeCell<Dlmalloc<Memory>>);

// SAFETY: a component has one thread.
unsafe impl Sync for Heap {}

// SAFETY: each function is dlmalloc's of the same contract. A component has one thread, and dlmalloc
// calls nothing that would allocate, so there is no second reference while one of these is used.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { (*self.0.get()).free(pointer, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { (*self.0.get()).realloc(pointer, layout.size(), layout.align(), size) }
    }
}

/// Where dlmalloc has its memory from.
struct Memory {
    next: Cell<Next>,
}

/// What was not given away yet.
#[derive(Clone, Copy)]
enum Next {
    /// [`ROOM_AT_FIRST`], and what comes after it.
    Room,
    /// The rest of the last page.
    Rest,
    /// What the memory may grow by.
    Growth,
}

unsafe extern "C" {
    /// The linker's: where the data end.
    static __heap_base: u8;
    /// The linker's: where the memory ends, at the beginning.
    static __heap_end: u8;
}

// SAFETY: `alloc` gives each piece of memory once: a static that nothing else names, what lies
// behind the program's data, and what the memory has grown by. All are zeros at the beginning.
unsafe impl Allocator for Memory {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if let Next::Room = self.next.get() {
            self.next.set(Next::Rest);
            if size <= ROOM {
                return (ROOM_AT_FIRST.0.get().cast(), ROOM, 0);
            }
        }
        if let Next::Rest = self.next.get() {
            self.next.set(Next::Growth);
            let (base, end) = (&raw const __heap_base, &raw const __heap_end);
            let rest = (end as usize).saturating_sub(base as usize);
            if size <= rest {
                return (base.cast_mut(), rest, 0);
            }
        }
        let now = wasm32::memory_size(0).saturating_mul(PAGE);
        let step = now.clamp(SHORTEST_STEP, LONGEST_STEP);
        let pages = size.max(step).div_ceil(PAGE);
        let grown = wasm32::memory_grow(0, pages);
        if grown == usize::MAX {
            return (ptr::null_mut(), 0, 0);
        }
        let start = grown * PAGE;
        // Not to the very end of the address space, since no pointer is behind that.
        let length = (pages * PAGE).min(usize::MAX - start);
        (start as *mut u8, length, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}
