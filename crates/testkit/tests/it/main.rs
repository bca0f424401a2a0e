//! The device suite against devices whose faults are known.

mod device;
