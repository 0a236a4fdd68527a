//! Receive buffers that the kernel picks from: a provided-buffer ring (Linux 5.19).
#![expect(unsafe_code, reason = "the memory is shared with the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};

/// The ring's memory must begin on a page (`io_uring_register_buf_ring(3)`).
const PAGE: usize = 4096;

/// A buffer that a completion has handed out: this process's alone until [`BufferRing::give_back`] consumes it.
#[derive(Debug)]
pub(super) struct BufferId(u16);

/// A ring of `count` buffers of equal size, each either the kernel's or handed out.
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    storage: NonNull<u8>,
    count: u16,
    bytes_each: u32,
    tail: u16,
    /// Whether each buffer is handed out: no completion, read twice, makes two of one buffer.
    handed_out: Box<[bool]>,
}

impl BufferRing {
    /// The only group that this program registers.
    pub(super) const GROUP: u16 = 0;

    /// Registers the buffers with `ring`.
    ///
    /// # Panics
    /// When `count` is not a power of two (the kernel's rule).
    ///
    /// # Safety
    /// The buffers must live until nothing of the ring uses them any more: until its requests are cancelled, or it is
    /// closed without any.
    pub(super) unsafe fn register(ring: &IoUring, count: u16, bytes_each: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        let entries = allocate(Self::entries_layout(count)).cast();
        let storage = allocate(Self::storage_layout(count, bytes_each));
        let handed_out = vec![false; usize::from(count)].into();
        let mut buffers = Self { entries, storage, count, bytes_each, tail: 0, handed_out };
        for id in 0..count {
            buffers.put(id);
        }
        buffers.publish();
        // SAFETY: the entries live until `buffers` is dropped, which the caller does when nothing uses them any more.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, Self::GROUP, 0)?;
        }
        Ok(buffers)
    }

    /// Takes the buffer that a completion hands out, if it hands one out.
    ///
    /// # Panics
    /// When the buffer is handed out already: the completion was taken before.
    pub(super) fn take(&mut self, completion: &cqueue::Entry) -> Option<BufferId> {
        let id = cqueue::buffer_select(completion.flags())?;
        let before = std::mem::replace(&mut self.handed_out[usize::from(id)], true);
        assert!(!before, "a completion hands its buffer out once");
        Some(BufferId(id))
    }

    /// The first `len` bytes of a buffer.
    ///
    /// # Panics
    /// When it is shorter.
    pub(super) fn bytes(&self, BufferId(id): &BufferId, len: usize) -> &[u8] {
        assert!(*id < self.count && len <= self.bytes_each as usize);
        // SAFETY: within `storage`, which lives as long as `self` and was zeroed, so every byte is initialised. The
        // kernel does not write to a buffer that is handed out: whoever has its only id gives it back with
        // `give_back`, which needs `&mut self` and so ends this borrow.
        unsafe {
            let start = self.storage.add(usize::from(*id) * self.bytes_each as usize);
            std::slice::from_raw_parts(start.as_ptr(), len)
        }
    }

    /// Lets the kernel use a buffer again.
    #[expect(clippy::needless_pass_by_value, reason = "whoever gives it back has it no more")]
    pub(super) fn give_back(&mut self, buffer: BufferId) {
        self.handed_out[usize::from(buffer.0)] = false;
        self.put(buffer.0);
        self.publish();
    }

    fn put(&mut self, id: u16) {
        let at = self.tail & (self.count - 1);
        // SAFETY: `at` is below `count`, so the entry lies in the allocation; the kernel reads entries only
        // below the tail, which does not include this one yet. The storage offset is in bounds likewise.
        unsafe {
            let entry = &mut *self.entries.add(usize::from(at)).as_ptr();
            entry.set_addr(self.storage.add(usize::from(id) * self.bytes_each as usize).as_ptr() as u64);
            entry.set_len(self.bytes_each);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry, in memory that lives as long as `self`; the kernel reads
        // it concurrently, hence the atomic, whose release makes the entries visible first.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr());
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    fn entries_layout(count: u16) -> Layout {
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE).expect("at most 512 KiB")
    }

    fn storage_layout(count: u16, bytes_each: u32) -> Layout {
        Layout::from_size_align(usize::from(count) * bytes_each as usize, PAGE)
            .expect("far below the address space")
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated with these layouts; the ring that used them is gone (see `register`).
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.storage.as_ptr(), Self::storage_layout(self.count, self.bytes_each));
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0);
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
