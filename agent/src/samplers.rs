//! One module per source. Each sampler keeps its files open and fills its groups with what they say.

pub mod arp;
pub mod conntrack;
pub mod cpu;
pub mod cpufreq;
pub mod disk;
pub mod filesystem;
pub mod gpu;
pub mod memory;
pub mod netclass;
pub mod netdev;
pub mod netstat;
mod objects;
pub mod os;
pub mod pressure;
pub mod scalars;
pub mod schedstat;
pub mod selinux;
pub mod sockstat;
pub mod softnet;
pub mod stat;
pub mod thermal_zone;
pub mod time;
pub mod timex;
mod udev;
pub mod udp_queues;
pub mod uname;
pub mod vmstat;
