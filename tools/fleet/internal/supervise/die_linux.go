package supervise

import "syscall"

// dieWithParent has the kernel kill the process when the supervisor is gone, however it went.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
