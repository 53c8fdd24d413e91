//! The only place where map types become plain data for aya.

/// A map key or value of [`trunkline_core::abi`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

// SAFETY: `bytemuck::Pod` demands the same, checked by its derive: all bits are valid, and there is no
// padding.
unsafe impl<T: bytemuck::Pod> aya::Pod for Raw<T> {}
