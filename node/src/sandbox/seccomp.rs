//! System calls that no job needs: refused with EPERM, or with ENOSYS where programs know another way.
//!
//! A list of refusals, for jobs are arbitrary programs. It closes what files rights do not govern: other processes, new
//! namespaces, sockets, io_uring, kernel keys, tracing, mounts. The filter also guards the cell, which shares user and
//! sandbox with its tasks: nobody but the node may signal it or change its limits.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::SandboxError;

/// Refused whatever their arguments.
const REFUSED: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] =
    &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib, libc::SYS__sysctl];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// Answered as if the kernel did not have them: programs then take the older call, whose arguments can be checked.
const UNKNOWN: &[i64] = &[libc::SYS_clone3, libc::SYS_pidfd_send_signal];

/// Every flag that makes a namespace, but `CLONE_NEWTIME`, whose bit is a signal number in clone(2).
const NEW_NAMESPACE: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
const CLONE_NEWTIME: u64 = 0x80;
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
/// Numbers from here on are x32 calls, a second door to every call.
#[cfg(target_arch = "x86_64")]
const X32_FIRST: u32 = 0x4000_0000;

/// Puts the filter in force for this thread and its children.
pub(super) fn apply(network: bool) -> Result<(), SandboxError> {
    let own_pid = rustix::process::getpid().as_raw_pid();
    let program = program(network, own_pid).map_err(|e| unavailable(&e.to_string()))?;
    seccompiler::apply_filter(&program).map_err(|e| unavailable(&e.to_string()))
}

fn unavailable(why: &str) -> SandboxError {
    SandboxError::Unavailable {
        kind: "seccomp",
        why: why.to_owned(),
        remedy: "it needs a kernel with CONFIG_SECCOMP_FILTER on x86_64, aarch64 or riscv64",
    }
}

fn program(network: bool, own_pid: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let rules = rules(network, own_pid)?;
    let compiled: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch)?.try_into()?;
    let mut program = prologue();
    program.extend(compiled);
    Ok(program)
}

/// Loads the call's number and answers ENOSYS to the calls of [`UNKNOWN`] and to the x32 table.
fn prologue() -> BpfProgram {
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    let insn = |code: u32, jt: u8, k: u32| sock_filter {
        code: u16::try_from(code).expect("BPF codes have 16 bits"),
        jt,
        jf: u8::from(jt == 0),
        k,
    };
    let load = sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let answer = sock_filter { code: 0x06, jt: 0, jf: 0, k: enosys };
    let mut program = vec![load];
    for nr in UNKNOWN {
        // Equal: on to the answer; else over it.
        program.push(insn(0x15, 0, u32::try_from(*nr).expect("call numbers are small")));
        program.push(answer.clone());
    }
    #[cfg(target_arch = "x86_64")]
    program.extend([insn(0x35, 0, X32_FIRST), answer]);
    program
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(network: bool, own_pid: i32) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|nr| (*nr, Vec::new())).collect();
    let new_namespace = || NEW_NAMESPACE.iter().map(|flag| when(&[(0, Op::MaskedEq(*flag), *flag)]));
    rules.insert(libc::SYS_clone, new_namespace().collect::<Result<_, _>>()?);
    let newtime = when(&[(0, Op::MaskedEq(CLONE_NEWTIME), CLONE_NEWTIME)]);
    rules.insert(libc::SYS_unshare, new_namespace().chain([newtime]).collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_ioctl, vec![when(&[(1, Op::Eq, TIOCSTI)])?, when(&[(1, Op::Eq, TIOCLINUX)])?]);
    sockets(network, &mut rules)?;
    guard(own_pid, &mut rules)?;
    Ok(rules)
}

/// Internet sockets only where they are granted; of Unix sockets only connected pairs, for a path would lead to the
/// owner's services (docker, ssh-agent, the session bus) and a datagram socket of a pair can be connected anew.
fn sockets(network: bool, rules: &mut Rules) -> Result<(), seccompiler::BackendError> {
    let domain_is_not = |allowed: &[i32]| {
        let conditions: Vec<_> = allowed.iter().map(|d| (0, Op::Ne, u64::from(d.unsigned_abs()))).collect();
        when(&conditions)
    };
    let sockets = if network {
        let unusual = domain_is_not(&[libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK])?;
        let route_only = when(&[
            (0, Op::Eq, u64::from(libc::AF_NETLINK.unsigned_abs())),
            (2, Op::Ne, u64::from(libc::NETLINK_ROUTE.unsigned_abs())),
        ])?;
        vec![unusual, route_only]
    } else {
        Vec::new()
    };
    rules.insert(libc::SYS_socket, sockets);
    let not_unix = domain_is_not(&[libc::AF_UNIX])?;
    let datagram = when(&[(1, Op::MaskedEq(0xf), u64::from(libc::SOCK_DGRAM.unsigned_abs()))])?;
    let raw = when(&[(1, Op::MaskedEq(0xf), u64::from(libc::SOCK_RAW.unsigned_abs()))])?;
    rules.insert(libc::SYS_socketpair, vec![not_unix, datagram, raw]);
    Ok(())
}

/// Keeps the tasks' hands off the cell.
fn guard(own_pid: i32, rules: &mut Rules) -> Result<(), seccompiler::BackendError> {
    let bits = |pid: i32| u64::from(pid.cast_unsigned());
    let own = |arg: u8| when(&[(arg, Op::Eq, bits(own_pid))]);
    rules.insert(libc::SYS_kill, vec![own(0)?, when(&[(0, Op::Eq, bits(-own_pid))])?, when(&[(0, Op::Eq, bits(-1))])?]);
    for nr in [
        libc::SYS_tkill,
        libc::SYS_tgkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_prlimit64,
        libc::SYS_pidfd_open,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setaffinity,
    ] {
        rules.insert(nr, vec![own(0)?]);
    }
    rules.insert(libc::SYS_setpgid, vec![own(1)?]);
    rules.insert(libc::SYS_setpriority, vec![own(1)?]);
    Ok(())
}

/// All of these hold for the lower halves of the arguments, which is all that these calls look at.
fn when(conditions: &[(u8, Op, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions
        .iter()
        .map(|(arg, op, value)| SeccompCondition::new(*arg, Len::Dword, op.clone(), *value))
        .collect::<Result<_, _>>()?;
    SeccompRule::new(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_with_and_without_network() {
        for network in [false, true] {
            let program = program(network, 4242).unwrap();
            assert!(program.len() > REFUSED.len() && program.len() < 4096, "{}", program.len());
        }
    }
}
