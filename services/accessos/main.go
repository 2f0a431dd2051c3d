// Command accessos is every service of AccessOS: its first argument is the role. A role reads its own configuration from variables
// that begin with A3_, refuses any that belongs to another role, and starts nothing that only another role needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"a3os.app/libs/awssession"
	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/libs/garbage"
	"a3os.app/services/audit"
	"a3os.app/services/discovery"
	"a3os.app/services/discoveryworker"
	"a3os.app/services/gateway"
	"a3os.app/services/iam"
	"a3os.app/services/integrations"
	"a3os.app/services/migrate"
	"a3os.app/services/registry"
)

// roles are what a process can be.
var roles = map[string]func(ctx context.Context, environ []string) error{
	"audit":            role("audit", audit.Run),
	"discovery":        role("discovery", discovery.Run),
	"discovery-worker": role("discovery-worker", discoveryworker.Run),
	"gateway":          role("gateway", gateway.Run),
	"iam":              role("iam", iam.Run),
	"integrations":     role("integrations", integrations.Run),
	"machine-reader":   role("machine-reader", discoveryworker.ReadMachine),
	"machine-snapshot": role("machine-snapshot", discoveryworker.SnapshotMachine),
	"migrate":          role("migrate", migrate.Run),
	"migrations":       role("migrations", migrate.List),
	"recover-admin":    role("recover-admin", iam.RecoverAdmin),
	"registry":         role("registry", registry.Run),
	"restored":         role("restored", iam.Restored),
	"verify-log":       role("verify-log", audit.VerifyLog),
}

// command is no role: a platform runs it beside one, in an image where there is no other program. It reads no configuration of a role.
type command struct {
	// args are what it takes, as a person would type them, and reason is why this program does it.
	args, reason string
	// calls says that it calls others over TLS.
	calls bool
	run   func(ctx context.Context, args, environ []string) int
}

var commands = map[string]command{
	"ask-doors": {reason: "a proof of isolation has a task of a set run it, with a role of that set, and reads what each door answered", calls: true,
		run: func(ctx context.Context, _, environ []string) int { return askDoors(ctx, environ, os.Stdout) }},
	"keep-socket": {args: "HOST:PORT PATH UID", reason: "a platform that can't give a container a socket runs it beside the one that serves on it",
		run: func(ctx context.Context, args, _ []string) int { return keepSocket(ctx, args) }},
	"place-files": {reason: "an engine that hands secrets over in variables alone runs it before the role, which reads files: a variable is handed on to " +
		"every child, stays in sight for as long as the process lives, and can't be renewed",
		run: func(_ context.Context, _, environ []string) int { return place(environ) }},
	"ready": {args: "URL", reason: "a container's engine runs it beside the role, to ask whether that is ready",
		run: func(ctx context.Context, args, _ []string) int { return ready(ctx, args[0]) }},
}

// usage is what there is to run.
func usage() string {
	var b strings.Builder
	fmt.Fprintf(&b, "accessos ROLE, one of %s; or, beside a role:", strings.Join(slices.Sorted(maps.Keys(roles)), ", "))
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		fmt.Fprintf(&b, "\n  %-32s %s", strings.TrimSpace("accessos "+name+" "+commands[name].args), commands[name].reason)
	}
	return b.String()
}

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
	// exitRefused is of a role that is run by hand, and may not do what it was asked.
	exitRefused = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if code := run(ctx, os.Args[1:], os.Environ()); code != 0 {
		stop()
		os.Exit(code)
	}
}

func run(ctx context.Context, args, environ []string) int {
	if len(args) == 0 {
		fmt.Fprintf(os.Stderr, "accessos: say what to run: %s\n", usage())
		return exitUsage
	}
	start, isRole := roles[args[0]]
	beside, isCommand := commands[args[0]]
	switch {
	case !isRole && !isCommand:
		fmt.Fprintf(os.Stderr, "accessos: there is no role %q: it is %s\n", args[0], usage())
		return exitUsage
	case len(args)-1 != len(strings.Fields(beside.args)):
		fmt.Fprintf(os.Stderr, "accessos: it is called as: %s\n", strings.TrimSpace("accessos "+args[0]+" "+beside.args))
		return exitUsage
	}
	if err := awssession.RefuseKeys(environ); err != nil {
		fmt.Fprintf(os.Stderr, "accessos: %v\n", err)
		return exitUsage
	}
	if isRole || beside.calls {
		if err := publicRoots(); err != nil {
			fmt.Fprintf(os.Stderr, "accessos: %v\n", err)
			return exitFailed
		}
	}
	if err := confine(); err != nil {
		fmt.Fprintf(os.Stderr, "accessos: this system does not let a process protect its memory: %v\n", err)
		return exitFailed
	}
	if isCommand {
		return beside.run(ctx, args[1:], environ)
	}
	return serve(ctx, args[0], start, environ)
}

// serve runs a role to its end.
func serve(ctx context.Context, name string, start func(context.Context, []string) error, environ []string) int {
	err := start(ctx, environ)
	var bad *config.Error
	var refused *fault.Error
	switch {
	case err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)):
		return 0
	case errors.As(err, &bad):
		fmt.Fprintf(os.Stderr, "accessos: %v\n", err)
		return exitUsage
	case name == "recover-admin" && errors.As(err, &refused):
		// It is run by hand, and a person reads why not.
		fmt.Fprintf(os.Stderr, "accessos: %s\n", refused.Message)
		return exitRefused
	}
	slog.Error("the process ends", "role", name, "error", err)
	return exitFailed
}

// role reads a role's configuration and runs it.
func role[C any](name string, run func(ctx context.Context, cfg C) error) func(context.Context, []string) error {
	return func(ctx context.Context, environ []string) error {
		// Those that go on have it collected as always once they serve.
		garbage.Seldom()
		cfg, err := config.Load[C](name, environ)
		if err != nil {
			return err
		}
		return run(ctx, cfg)
	}
}
