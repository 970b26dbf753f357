//! The system call table: every Linux system call by name, with its number in both ABIs.
//!
//! Only the table lives here; what a call does is in the files by area. A call that nobody
//! implements still has its name, so that the log can say what a guest misses.

use crate::user::abi::Abi;

macro_rules! syscalls {
    (@nr _) => { u32::MAX };
    (@nr $n:literal) => { $n };
    ($($variant:ident $name:literal $x64:tt $i386:tt;)*) => {
        /// A system call.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        #[allow(missing_docs)]
        pub enum Sys { $($variant,)* }

        /// Name and numbers (x86-64, i386; `u32::MAX` where it does not exist), in enum order.
        const TABLE: &[(Sys, &str, u32, u32)] = &[
            $((Sys::$variant, $name, syscalls!(@nr $x64), syscalls!(@nr $i386)),)*
        ];
    };
}

syscalls! {
    Read "read" 0 3;
    Write "write" 1 4;
    Open "open" 2 5;
    Close "close" 3 6;
    Stat "stat" 4 106;
    Fstat "fstat" 5 108;
    Lstat "lstat" 6 107;
    Poll "poll" 7 168;
    Lseek "lseek" 8 19;
    Mmap "mmap" 9 90;
    Mprotect "mprotect" 10 125;
    Munmap "munmap" 11 91;
    Brk "brk" 12 45;
    RtSigaction "rt_sigaction" 13 174;
    RtSigprocmask "rt_sigprocmask" 14 175;
    RtSigreturn "rt_sigreturn" 15 173;
    Ioctl "ioctl" 16 54;
    Pread64 "pread64" 17 180;
    Pwrite64 "pwrite64" 18 181;
    Readv "readv" 19 145;
    Writev "writev" 20 146;
    Access "access" 21 33;
    Pipe "pipe" 22 42;
    Select "select" 23 82;
    SchedYield "sched_yield" 24 158;
    Mremap "mremap" 25 163;
    Msync "msync" 26 144;
    Mincore "mincore" 27 218;
    Madvise "madvise" 28 219;
    Shmget "shmget" 29 395;
    Shmat "shmat" 30 397;
    Shmctl "shmctl" 31 396;
    Dup "dup" 32 41;
    Dup2 "dup2" 33 63;
    Pause "pause" 34 29;
    Nanosleep "nanosleep" 35 162;
    Getitimer "getitimer" 36 105;
    Alarm "alarm" 37 27;
    Setitimer "setitimer" 38 104;
    Getpid "getpid" 39 20;
    Sendfile "sendfile" 40 187;
    Socket "socket" 41 359;
    Connect "connect" 42 362;
    Accept "accept" 43 _;
    Sendto "sendto" 44 369;
    Recvfrom "recvfrom" 45 371;
    Sendmsg "sendmsg" 46 370;
    Recvmsg "recvmsg" 47 372;
    Shutdown "shutdown" 48 373;
    Bind "bind" 49 361;
    Listen "listen" 50 363;
    Getsockname "getsockname" 51 367;
    Getpeername "getpeername" 52 368;
    Socketpair "socketpair" 53 360;
    Setsockopt "setsockopt" 54 366;
    Getsockopt "getsockopt" 55 365;
    Clone "clone" 56 120;
    Fork "fork" 57 2;
    Vfork "vfork" 58 190;
    Execve "execve" 59 11;
    Exit "exit" 60 1;
    Wait4 "wait4" 61 114;
    Kill "kill" 62 37;
    Uname "uname" 63 122;
    Semget "semget" 64 393;
    Semop "semop" 65 _;
    Semctl "semctl" 66 394;
    Shmdt "shmdt" 67 398;
    Msgget "msgget" 68 399;
    Msgsnd "msgsnd" 69 400;
    Msgrcv "msgrcv" 70 401;
    Msgctl "msgctl" 71 402;
    Fcntl "fcntl" 72 55;
    Flock "flock" 73 143;
    Fsync "fsync" 74 118;
    Fdatasync "fdatasync" 75 148;
    Truncate "truncate" 76 92;
    Ftruncate "ftruncate" 77 93;
    Getdents "getdents" 78 141;
    Getcwd "getcwd" 79 183;
    Chdir "chdir" 80 12;
    Fchdir "fchdir" 81 133;
    Rename "rename" 82 38;
    Mkdir "mkdir" 83 39;
    Rmdir "rmdir" 84 40;
    Creat "creat" 85 8;
    Link "link" 86 9;
    Unlink "unlink" 87 10;
    Symlink "symlink" 88 83;
    Readlink "readlink" 89 85;
    Chmod "chmod" 90 15;
    Fchmod "fchmod" 91 94;
    Chown "chown" 92 182;
    Fchown "fchown" 93 95;
    Lchown "lchown" 94 16;
    Umask "umask" 95 60;
    Gettimeofday "gettimeofday" 96 78;
    Getrlimit "getrlimit" 97 76;
    Getrusage "getrusage" 98 77;
    Sysinfo "sysinfo" 99 116;
    Times "times" 100 43;
    Ptrace "ptrace" 101 26;
    Getuid "getuid" 102 24;
    Syslog "syslog" 103 103;
    Getgid "getgid" 104 47;
    Setuid "setuid" 105 23;
    Setgid "setgid" 106 46;
    Geteuid "geteuid" 107 49;
    Getegid "getegid" 108 50;
    Setpgid "setpgid" 109 57;
    Getppid "getppid" 110 64;
    Getpgrp "getpgrp" 111 65;
    Setsid "setsid" 112 66;
    Setreuid "setreuid" 113 70;
    Setregid "setregid" 114 71;
    Getgroups "getgroups" 115 80;
    Setgroups "setgroups" 116 81;
    Setresuid "setresuid" 117 164;
    Getresuid "getresuid" 118 165;
    Setresgid "setresgid" 119 170;
    Getresgid "getresgid" 120 171;
    Getpgid "getpgid" 121 132;
    Setfsuid "setfsuid" 122 138;
    Setfsgid "setfsgid" 123 139;
    Getsid "getsid" 124 147;
    Capget "capget" 125 184;
    Capset "capset" 126 185;
    RtSigpending "rt_sigpending" 127 176;
    RtSigtimedwait "rt_sigtimedwait" 128 177;
    RtSigqueueinfo "rt_sigqueueinfo" 129 178;
    RtSigsuspend "rt_sigsuspend" 130 179;
    Sigaltstack "sigaltstack" 131 186;
    Utime "utime" 132 30;
    Mknod "mknod" 133 14;
    Uselib "uselib" 134 86;
    Personality "personality" 135 136;
    Ustat "ustat" 136 62;
    Statfs "statfs" 137 99;
    Fstatfs "fstatfs" 138 100;
    Sysfs "sysfs" 139 135;
    Getpriority "getpriority" 140 96;
    Setpriority "setpriority" 141 97;
    SchedSetparam "sched_setparam" 142 154;
    SchedGetparam "sched_getparam" 143 155;
    SchedSetscheduler "sched_setscheduler" 144 156;
    SchedGetscheduler "sched_getscheduler" 145 157;
    SchedGetPriorityMax "sched_get_priority_max" 146 159;
    SchedGetPriorityMin "sched_get_priority_min" 147 160;
    SchedRrGetInterval "sched_rr_get_interval" 148 161;
    Mlock "mlock" 149 150;
    Munlock "munlock" 150 151;
    Mlockall "mlockall" 151 152;
    Munlockall "munlockall" 152 153;
    Vhangup "vhangup" 153 111;
    ModifyLdt "modify_ldt" 154 123;
    PivotRoot "pivot_root" 155 217;
    Sysctl "_sysctl" 156 149;
    Prctl "prctl" 157 172;
    ArchPrctl "arch_prctl" 158 384;
    Adjtimex "adjtimex" 159 124;
    Setrlimit "setrlimit" 160 75;
    Chroot "chroot" 161 61;
    Sync "sync" 162 36;
    Acct "acct" 163 51;
    Settimeofday "settimeofday" 164 79;
    Mount "mount" 165 21;
    Umount2 "umount2" 166 52;
    Swapon "swapon" 167 87;
    Swapoff "swapoff" 168 115;
    Reboot "reboot" 169 88;
    Sethostname "sethostname" 170 74;
    Setdomainname "setdomainname" 171 121;
    Iopl "iopl" 172 110;
    Ioperm "ioperm" 173 101;
    CreateModule "create_module" 174 127;
    InitModule "init_module" 175 128;
    DeleteModule "delete_module" 176 129;
    GetKernelSyms "get_kernel_syms" 177 130;
    QueryModule "query_module" 178 167;
    Quotactl "quotactl" 179 131;
    Nfsservctl "nfsservctl" 180 169;
    Getpmsg "getpmsg" 181 188;
    Putpmsg "putpmsg" 182 189;
    AfsSyscall "afs_syscall" 183 137;
    Tuxcall "tuxcall" 184 _;
    Security "security" 185 _;
    Gettid "gettid" 186 224;
    Readahead "readahead" 187 225;
    Setxattr "setxattr" 188 226;
    Lsetxattr "lsetxattr" 189 227;
    Fsetxattr "fsetxattr" 190 228;
    Getxattr "getxattr" 191 229;
    Lgetxattr "lgetxattr" 192 230;
    Fgetxattr "fgetxattr" 193 231;
    Listxattr "listxattr" 194 232;
    Llistxattr "llistxattr" 195 233;
    Flistxattr "flistxattr" 196 234;
    Removexattr "removexattr" 197 235;
    Lremovexattr "lremovexattr" 198 236;
    Fremovexattr "fremovexattr" 199 237;
    Tkill "tkill" 200 238;
    Time "time" 201 13;
    Futex "futex" 202 240;
    SchedSetaffinity "sched_setaffinity" 203 241;
    SchedGetaffinity "sched_getaffinity" 204 242;
    SetThreadArea "set_thread_area" 205 243;
    IoSetup "io_setup" 206 245;
    IoDestroy "io_destroy" 207 246;
    IoGetevents "io_getevents" 208 247;
    IoSubmit "io_submit" 209 248;
    IoCancel "io_cancel" 210 249;
    GetThreadArea "get_thread_area" 211 244;
    LookupDcookie "lookup_dcookie" 212 253;
    EpollCreate "epoll_create" 213 254;
    EpollCtlOld "epoll_ctl_old" 214 _;
    EpollWaitOld "epoll_wait_old" 215 _;
    RemapFilePages "remap_file_pages" 216 257;
    Getdents64 "getdents64" 217 220;
    SetTidAddress "set_tid_address" 218 258;
    RestartSyscall "restart_syscall" 219 0;
    Semtimedop "semtimedop" 220 _;
    Fadvise64 "fadvise64" 221 250;
    TimerCreate "timer_create" 222 259;
    TimerSettime "timer_settime" 223 260;
    TimerGettime "timer_gettime" 224 261;
    TimerGetoverrun "timer_getoverrun" 225 262;
    TimerDelete "timer_delete" 226 263;
    ClockSettime "clock_settime" 227 264;
    ClockGettime "clock_gettime" 228 265;
    ClockGetres "clock_getres" 229 266;
    ClockNanosleep "clock_nanosleep" 230 267;
    ExitGroup "exit_group" 231 252;
    EpollWait "epoll_wait" 232 256;
    EpollCtl "epoll_ctl" 233 255;
    Tgkill "tgkill" 234 270;
    Utimes "utimes" 235 271;
    Vserver "vserver" 236 273;
    Mbind "mbind" 237 274;
    SetMempolicy "set_mempolicy" 238 276;
    GetMempolicy "get_mempolicy" 239 275;
    MqOpen "mq_open" 240 277;
    MqUnlink "mq_unlink" 241 278;
    MqTimedsend "mq_timedsend" 242 279;
    MqTimedreceive "mq_timedreceive" 243 280;
    MqNotify "mq_notify" 244 281;
    MqGetsetattr "mq_getsetattr" 245 282;
    KexecLoad "kexec_load" 246 283;
    Waitid "waitid" 247 284;
    AddKey "add_key" 248 286;
    RequestKey "request_key" 249 287;
    Keyctl "keyctl" 250 288;
    IoprioSet "ioprio_set" 251 289;
    IoprioGet "ioprio_get" 252 290;
    InotifyInit "inotify_init" 253 291;
    InotifyAddWatch "inotify_add_watch" 254 292;
    InotifyRmWatch "inotify_rm_watch" 255 293;
    MigratePages "migrate_pages" 256 294;
    Openat "openat" 257 295;
    Mkdirat "mkdirat" 258 296;
    Mknodat "mknodat" 259 297;
    Fchownat "fchownat" 260 298;
    Futimesat "futimesat" 261 299;
    Newfstatat "newfstatat" 262 _;
    Unlinkat "unlinkat" 263 301;
    Renameat "renameat" 264 302;
    Linkat "linkat" 265 303;
    Symlinkat "symlinkat" 266 304;
    Readlinkat "readlinkat" 267 305;
    Fchmodat "fchmodat" 268 306;
    Faccessat "faccessat" 269 307;
    Pselect6 "pselect6" 270 308;
    Ppoll "ppoll" 271 309;
    Unshare "unshare" 272 310;
    SetRobustList "set_robust_list" 273 311;
    GetRobustList "get_robust_list" 274 312;
    Splice "splice" 275 313;
    Tee "tee" 276 315;
    SyncFileRange "sync_file_range" 277 314;
    Vmsplice "vmsplice" 278 316;
    MovePages "move_pages" 279 317;
    Utimensat "utimensat" 280 320;
    EpollPwait "epoll_pwait" 281 319;
    Signalfd "signalfd" 282 321;
    TimerfdCreate "timerfd_create" 283 322;
    Eventfd "eventfd" 284 323;
    Fallocate "fallocate" 285 324;
    TimerfdSettime "timerfd_settime" 286 325;
    TimerfdGettime "timerfd_gettime" 287 326;
    Accept4 "accept4" 288 364;
    Signalfd4 "signalfd4" 289 327;
    Eventfd2 "eventfd2" 290 328;
    EpollCreate1 "epoll_create1" 291 329;
    Dup3 "dup3" 292 330;
    Pipe2 "pipe2" 293 331;
    InotifyInit1 "inotify_init1" 294 332;
    Preadv "preadv" 295 333;
    Pwritev "pwritev" 296 334;
    RtTgsigqueueinfo "rt_tgsigqueueinfo" 297 335;
    PerfEventOpen "perf_event_open" 298 336;
    Recvmmsg "recvmmsg" 299 337;
    FanotifyInit "fanotify_init" 300 338;
    FanotifyMark "fanotify_mark" 301 339;
    Prlimit64 "prlimit64" 302 340;
    NameToHandleAt "name_to_handle_at" 303 341;
    OpenByHandleAt "open_by_handle_at" 304 342;
    ClockAdjtime "clock_adjtime" 305 343;
    Syncfs "syncfs" 306 344;
    Sendmmsg "sendmmsg" 307 345;
    Setns "setns" 308 346;
    Getcpu "getcpu" 309 318;
    ProcessVmReadv "process_vm_readv" 310 347;
    ProcessVmWritev "process_vm_writev" 311 348;
    Kcmp "kcmp" 312 349;
    FinitModule "finit_module" 313 350;
    SchedSetattr "sched_setattr" 314 351;
    SchedGetattr "sched_getattr" 315 352;
    Renameat2 "renameat2" 316 353;
    Seccomp "seccomp" 317 354;
    Getrandom "getrandom" 318 355;
    MemfdCreate "memfd_create" 319 356;
    KexecFileLoad "kexec_file_load" 320 _;
    Bpf "bpf" 321 357;
    Execveat "execveat" 322 358;
    Userfaultfd "userfaultfd" 323 374;
    Membarrier "membarrier" 324 375;
    Mlock2 "mlock2" 325 376;
    CopyFileRange "copy_file_range" 326 377;
    Preadv2 "preadv2" 327 378;
    Pwritev2 "pwritev2" 328 379;
    PkeyMprotect "pkey_mprotect" 329 380;
    PkeyAlloc "pkey_alloc" 330 381;
    PkeyFree "pkey_free" 331 382;
    Statx "statx" 332 383;
    IoPgetevents "io_pgetevents" 333 385;
    Rseq "rseq" 334 386;
    PidfdSendSignal "pidfd_send_signal" 424 424;
    IoUringSetup "io_uring_setup" 425 425;
    IoUringEnter "io_uring_enter" 426 426;
    IoUringRegister "io_uring_register" 427 427;
    OpenTree "open_tree" 428 428;
    MoveMount "move_mount" 429 429;
    Fsopen "fsopen" 430 430;
    Fsconfig "fsconfig" 431 431;
    Fsmount "fsmount" 432 432;
    Fspick "fspick" 433 433;
    PidfdOpen "pidfd_open" 434 434;
    Clone3 "clone3" 435 435;
    CloseRange "close_range" 436 436;
    Openat2 "openat2" 437 437;
    PidfdGetfd "pidfd_getfd" 438 438;
    Faccessat2 "faccessat2" 439 439;
    ProcessMadvise "process_madvise" 440 440;
    EpollPwait2 "epoll_pwait2" 441 441;
    MountSetattr "mount_setattr" 442 442;
    QuotactlFd "quotactl_fd" 443 443;
    LandlockCreateRuleset "landlock_create_ruleset" 444 444;
    LandlockAddRule "landlock_add_rule" 445 445;
    LandlockRestrictSelf "landlock_restrict_self" 446 446;
    MemfdSecret "memfd_secret" 447 447;
    ProcessMrelease "process_mrelease" 448 448;
    FutexWaitv "futex_waitv" 449 449;
    SetMempolicyHomeNode "set_mempolicy_home_node" 450 450;
    Waitpid "waitpid" _ 7;
    Break "break" _ 17;
    Oldstat "oldstat" _ 18;
    Umount "umount" _ 22;
    Stime "stime" _ 25;
    Oldfstat "oldfstat" _ 28;
    Stty "stty" _ 31;
    Gtty "gtty" _ 32;
    Nice "nice" _ 34;
    Ftime "ftime" _ 35;
    Prof "prof" _ 44;
    Signal "signal" _ 48;
    Lock "lock" _ 53;
    Mpx "mpx" _ 56;
    Ulimit "ulimit" _ 58;
    Oldolduname "oldolduname" _ 59;
    Sigaction "sigaction" _ 67;
    Sgetmask "sgetmask" _ 68;
    Ssetmask "ssetmask" _ 69;
    Sigsuspend "sigsuspend" _ 72;
    Sigpending "sigpending" _ 73;
    Oldlstat "oldlstat" _ 84;
    Readdir "readdir" _ 89;
    Profil "profil" _ 98;
    Socketcall "socketcall" _ 102;
    Olduname "olduname" _ 109;
    Idle "idle" _ 112;
    Vm86old "vm86old" _ 113;
    Ipc "ipc" _ 117;
    Sigreturn "sigreturn" _ 119;
    Sigprocmask "sigprocmask" _ 126;
    Bdflush "bdflush" _ 134;
    Llseek "_llseek" _ 140;
    Newselect "_newselect" _ 142;
    Vm86 "vm86" _ 166;
    Ugetrlimit "ugetrlimit" _ 191;
    Mmap2 "mmap2" _ 192;
    Truncate64 "truncate64" _ 193;
    Ftruncate64 "ftruncate64" _ 194;
    Stat64 "stat64" _ 195;
    Lstat64 "lstat64" _ 196;
    Fstat64 "fstat64" _ 197;
    Lchown32 "lchown32" _ 198;
    Getuid32 "getuid32" _ 199;
    Getgid32 "getgid32" _ 200;
    Geteuid32 "geteuid32" _ 201;
    Getegid32 "getegid32" _ 202;
    Setreuid32 "setreuid32" _ 203;
    Setregid32 "setregid32" _ 204;
    Getgroups32 "getgroups32" _ 205;
    Setgroups32 "setgroups32" _ 206;
    Fchown32 "fchown32" _ 207;
    Setresuid32 "setresuid32" _ 208;
    Getresuid32 "getresuid32" _ 209;
    Setresgid32 "setresgid32" _ 210;
    Getresgid32 "getresgid32" _ 211;
    Chown32 "chown32" _ 212;
    Setuid32 "setuid32" _ 213;
    Setgid32 "setgid32" _ 214;
    Setfsuid32 "setfsuid32" _ 215;
    Setfsgid32 "setfsgid32" _ 216;
    Fcntl64 "fcntl64" _ 221;
    Sendfile64 "sendfile64" _ 239;
    Statfs64 "statfs64" _ 268;
    Fstatfs64 "fstatfs64" _ 269;
    Fadvise6464 "fadvise64_64" _ 272;
    Fstatat64 "fstatat64" _ 300;
    ClockGettime64 "clock_gettime64" _ 403;
    ClockSettime64 "clock_settime64" _ 404;
    ClockAdjtime64 "clock_adjtime64" _ 405;
    ClockGetresTime64 "clock_getres_time64" _ 406;
    ClockNanosleepTime64 "clock_nanosleep_time64" _ 407;
    TimerGettime64 "timer_gettime64" _ 408;
    TimerSettime64 "timer_settime64" _ 409;
    TimerfdGettime64 "timerfd_gettime64" _ 410;
    TimerfdSettime64 "timerfd_settime64" _ 411;
    UtimensatTime64 "utimensat_time64" _ 412;
    Pselect6Time64 "pselect6_time64" _ 413;
    PpollTime64 "ppoll_time64" _ 414;
    IoPgeteventsTime64 "io_pgetevents_time64" _ 416;
    RecvmmsgTime64 "recvmmsg_time64" _ 417;
    MqTimedsendTime64 "mq_timedsend_time64" _ 418;
    MqTimedreceiveTime64 "mq_timedreceive_time64" _ 419;
    SemtimedopTime64 "semtimedop_time64" _ 420;
    RtSigtimedwaitTime64 "rt_sigtimedwait_time64" _ 421;
    FutexTime64 "futex_time64" _ 422;
    SchedRrGetIntervalTime64 "sched_rr_get_interval_time64" _ 423;
}

/// The highest number plus one that the tables by number need.
const NUMBERS: usize = 512;

const fn by_number(i386: bool) -> [Option<Sys>; NUMBERS] {
    let mut table = [None; NUMBERS];
    let mut i = 0;
    while i < TABLE.len() {
        let nr = if i386 { TABLE[i].3 } else { TABLE[i].2 };
        if nr != u32::MAX {
            table[nr as usize] = Some(TABLE[i].0);
        }
        i += 1;
    }
    table
}

static BY_NUMBER_64: [Option<Sys>; NUMBERS] = by_number(false);
static BY_NUMBER_32: [Option<Sys>; NUMBERS] = by_number(true);

impl Sys {
    /// The call with that number. x32 numbers (bit 30 set) are not calls here.
    pub fn from_number(abi: Abi, nr: u64) -> Option<Sys> {
        let table = match abi {
            Abi::X86_64 => &BY_NUMBER_64,
            Abi::I386 => &BY_NUMBER_32,
        };
        *table.get(usize::try_from(nr).ok()?)?
    }

    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Its number, if the ABI has it.
    pub fn number(self, abi: Abi) -> Option<u32> {
        let row = TABLE[self as usize];
        let nr = match abi {
            Abi::X86_64 => row.2,
            Abi::I386 => row.3,
        };
        (nr != u32::MAX).then_some(nr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_linux() {
        assert_eq!(Sys::from_number(Abi::X86_64, 0), Some(Sys::Read));
        assert_eq!(Sys::from_number(Abi::X86_64, 231), Some(Sys::ExitGroup));
        assert_eq!(Sys::from_number(Abi::I386, 1), Some(Sys::Exit));
        assert_eq!(Sys::from_number(Abi::I386, 192), Some(Sys::Mmap2));
        assert_eq!(Sys::from_number(Abi::I386, 403), Some(Sys::ClockGettime64));
        assert_eq!(Sys::from_number(Abi::X86_64, 0x4000_0000), None);
        assert_eq!(Sys::from_number(Abi::I386, u64::MAX), None);
    }

    #[test]
    fn every_call_is_found_under_its_numbers() {
        for (i, &(sys, name, _, _)) in TABLE.iter().enumerate() {
            assert_eq!(sys as usize, i);
            assert_eq!(sys.name(), name);
            for abi in [Abi::X86_64, Abi::I386] {
                if let Some(nr) = sys.number(abi) {
                    assert_eq!(Sys::from_number(abi, u64::from(nr)), Some(sys));
                }
            }
        }
    }
}
