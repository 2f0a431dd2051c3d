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
	names := strings.Join(slices.Sorted(maps.Keys(roles)), ", ")
	if len(args) == 2 && args[0] == asksReady {
		return ready(ctx, args[1])
	}
	if len(args) > 0 && args[0] == keepsSocket {
		return keepSocket(ctx, args[1:])
	}
	if len(args) == 1 && args[0] == placesFiles {
		return place(environ)
	}
	if len(args) == 1 && args[0] == asksDoors {
		return askDoors(ctx, environ, os.Stdout)
	}
	if len(args) != 1 {
		fmt.Fprintf(os.Stderr, "accessos: say which role to run: accessos ROLE, one of %s\n", names)
		return exitUsage
	}
	start, ok := roles[args[0]]
	if !ok {
		fmt.Fprintf(os.Stderr, "accessos: there is no role %q: it is one of %s\n", args[0], names)
		return exitUsage
	}
	if err := awssession.RefuseKeys(environ); err != nil {
		fmt.Fprintf(os.Stderr, "accessos: %v\n", err)
		return exitUsage
	}
	if err := publicRoots(); err != nil {
		fmt.Fprintf(os.Stderr, "accessos: %v\n", err)
		return exitFailed
	}
	if err := confine(); err != nil {
		fmt.Fprintf(os.Stderr, "accessos: this system does not let a process protect its memory: %v\n", err)
		return exitFailed
	}
	err := start(ctx, environ)
	var bad *config.Error
	var refused *fault.Error
	switch {
	case err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)):
		return 0
	case errors.As(err, &bad):
		fmt.Fprintf(os.Stderr, "accessos: %v\n", err)
		return exitUsage
	case args[0] == "recover-admin" && errors.As(err, &refused):
		// It is run by hand, and a person reads why not.
		fmt.Fprintf(os.Stderr, "accessos: %s\n", refused.Message)
		return exitRefused
	}
	slog.Error("the process ends", "role", args[0], "error", err)
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
