//! One registry on several machines, which share it in etcd.
//!
//! - [`store`]: what is asked of etcd, and what comes back.
//! - [`etcd`]: the client of etcd itself.

pub mod etcd;
pub mod store;
