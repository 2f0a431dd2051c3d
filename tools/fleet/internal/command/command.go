// Package command is the command line of fleet.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/internal/show"
)

// Exit codes.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitDenied   = 3
	exitNotFound = 4
)

// usageError is a command line, or a setting, that can't be meant.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// app is one run of fleet.
type app struct {
	environ []string
	// out and errOut show what is printed so that nothing in it steers a terminal; raw is where out leads to, for what other programs read.
	out, errOut, raw io.Writer
	format           string
}

// Run runs a command line and answers its exit code. Errors go to errOut, each as one sentence.
func Run(ctx context.Context, args, environ []string, out, errOut io.Writer) int {
	a := &app{environ: environ, out: show.Lines(out), errOut: show.Lines(errOut), raw: out}
	root := a.root() //nolint:contextcheck // commands take the context that ExecuteContext gives them
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	for line := range strings.SplitSeq(message(err), "\n") {
		_, _ = fmt.Fprintln(a.errOut, "fleet:", line)
	}
	return exitCode(err)
}

// message is what a person reads of an error, a line for each of several: the cause that a service kept for its log says nothing more to them.
func message(err error) string {
	if several, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // those that were joined, and not what one of them wraps
		var lines []string
		for _, one := range several.Unwrap() {
			lines = append(lines, message(one))
		}
		if all := errors.Join(several.Unwrap()...); all.Error() == err.Error() {
			return strings.Join(lines, "\n")
		}
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Message == "" {
		return err.Error()
	}
	return strings.Replace(err.Error(), f.Error(), f.Message, 1)
}

func exitCode(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	switch fault.KindOf(err) {
	case fault.InvalidArgument:
		return exitUsage
	case fault.PermissionDenied, fault.Unauthenticated:
		return exitDenied
	case fault.NotFound:
		return exitNotFound
	default:
		return exitFailed
	}
}

func (a *app) root() *cobra.Command {
	root := group("fleet", "Bring planes and tenants of AccessOS up, and look after them", a.planeCommand(), a.tenantCommand(), a.repairCommand(), a.planCommand(), a.approveCommand(), a.applyCommand(), a.operationCommand(),
		a.operatorCommand(), a.releaseCommand(), a.rolloutCommand(), a.licenceCommand(), a.statusCommand(), a.observabilityCommand(), a.metricsCommand(), a.isolationCommand(), a.backupCommand(), a.restoreCommand(), a.quotaCommand(), a.awsCommand())
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if a.format != "table" && a.format != "json" {
			return usageError{fmt.Errorf("-o is %q: it is table or json", a.format)}
		}
		if err := c.ValidateRequiredFlags(); err != nil {
			return usageError{fmt.Errorf("%w: see %s --help", err, c.CommandPath())}
		}
		return nil
	}
	root.PersistentFlags().StringVarP(&a.format, "output", "o", "table", "table or json")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see %s --help", err, c.CommandPath())}
	})
	return root
}

// group is a command that does nothing itself.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("there is no command %q: see %s --help", c.CommandPath()+" "+args[0], c.CommandPath())}
		}
		return nil
	}, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(commands...)
	return c
}

func (a *app) plane() (*plane.Plane, error) {
	root, err := settings.Root()
	if err != nil {
		return nil, err
	}
	s, err := settings.Load(a.environ, root)
	if err != nil {
		return nil, usageError{err}
	}
	return plane.New(s, reporter{a.errOut})
}

// reporter tells steps as they happen, beside the command's own output.
type reporter struct{ to io.Writer }

// Done implements plane.Reporter.
func (r reporter) Done(step string, took time.Duration) {
	_, _ = fmt.Fprintf(r.to, "✓ %s (%.1f s)\n", step, took.Seconds())
}

// Note implements plane.Reporter.
func (r reporter) Note(text string) { _, _ = fmt.Fprintln(r.to, "·", text) }

// root is the checkout, for paths as a reader of the output would write them.
func root() string {
	r, err := settings.Root()
	if err != nil {
		return "/"
	}
	return r
}
