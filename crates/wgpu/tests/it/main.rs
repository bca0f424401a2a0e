//! The device suite on a Vulkan adapter, which may be a software one; and, without an adapter, every shader through naga, to
//! SPIR-V's rules and to Metal's language.

mod formats;
mod shaders;
mod suite;
