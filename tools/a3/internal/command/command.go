// Package command is what a3 can be told to do. It promises that an answer goes to standard output and everything else to standard
// error, that an error is one sentence with the next step in it, and that the exit code tells kinds of failure apart. It relies on
// the tenant's services for every decision: nothing is checked here that they don't check themselves.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"a3os.app/tools/internal/profile"
	"a3os.app/tools/internal/show"
)

// World is what a command may touch.
type World struct {
	// In, Out and Err are the standard streams.
	In io.Reader
	// Out takes answers.
	Out io.Writer
	// Err takes everything else.
	Err io.Writer
}

// app is one run of the program.
type app struct {
	World
	// began says that the arguments were good and the command's own work began.
	began bool
	now   func() time.Time

	profile   string
	output    string
	workspace string
	key       string
	// again is what else to say when a creating command is run again.
	again string
}

// Run does what the arguments say and answers the exit code.
func Run(ctx context.Context, world World, args []string) int {
	a := &app{World: world, now: time.Now}
	root := a.root() //nolint:contextcheck // cobra hands the context to the command that runs
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	return a.report(cmd, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "a3",
		Short: "Who has access to what, why, and since when",
		Long: `a3 asks a tenant of AccessOS who has access to what, why, and since when, and manages what it takes to answer that:
the systems that are connected, discovery, workspaces, people and the audit log.

It acts as a profile, which "a3 login" makes. Profiles lie in $A3_HOME/profiles.`,
		Example: `  a3 --profile acme-admin whoami
  a3 access who app.public.orders --entitlement SELECT
  a3 access why alice app.public.orders
  a3 discovery run shop-db --watch`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	flags := root.PersistentFlags()
	flags.StringVarP(&a.profile, "profile", "p", os.Getenv("A3_PROFILE"), "profile to act as; the only one there is, when not given (A3_PROFILE)")
	flags.StringVarP(&a.output, "output", "o", "table", "form of the answer: table or json")
	flags.StringVarP(&a.workspace, "workspace", "w", os.Getenv("A3_WORKSPACE"), "workspace to act in, by name or id; else the profile's, else your only one (A3_WORKSPACE)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.output != "table" && a.output != "json" {
			return fmt.Errorf("--output is table or json, not %q", a.output)
		}
		return nil
	}
	complete(root, "profile", func(string) []string {
		names, _ := a.completions()
		return names
	})
	complete(root, "output", func(string) []string { return []string{"table", "json"} })
	root.AddCommand(
		a.login(), a.tokenCommand(), a.whoami(), a.profileGroup(),
		a.workspaceGroup(), a.memberGroup(), a.userGroup(), a.serviceAccountGroup(), a.keyGroup(),
		a.integrationGroup(), a.discoveryGroup(), a.accessGroup(), a.deadLetterGroup(), a.auditGroup(), a.licenceGroup(), a.usageGroup(),
	)
	return root
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use, Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			var names []string
			for _, c := range commands {
				names = append(names, c.Name())
			}
			if len(args) > 0 {
				return fmt.Errorf("%q is no command of %q: use %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))
			}
			return fmt.Errorf("say what to do: %s %s", cmd.CommandPath(), strings.Join(names, "|"))
		},
	}
	g.AddCommand(commands...)
	return g
}

// doing is a command's work. Errors before it are those of the arguments.
func (a *app) doing(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.began = true
		return work(cmd.Context(), args)
	}
}

// exactly demands named arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing: %s", names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return fmt.Errorf("%q is one argument too many: %s", args[len(names)], cmd.UseLine())
		}
		for i, name := range names {
			if strings.TrimSpace(args[i]) == "" {
				return fmt.Errorf("%s is empty: %s", name, cmd.UseLine())
			}
		}
		return nil
	}
}

// complete offers values of a flag in the shell.
func complete(cmd *cobra.Command, flag string, values func(prefix string) []string) {
	// It fails only for a flag that isn't there.
	_ = cmd.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return values(prefix), cobra.ShellCompDirectiveNoFileComp
	})
}

func (a *app) json() bool { return a.output == "json" }

// answer shows an answer of the API: the message itself, or what table writes.
func (a *app) answer(m proto.Message, table func() error) error {
	if a.json() {
		return show.Message(a.Out, m)
	}
	return table()
}

// list shows a table, or says on standard error that there is nothing in it.
func (a *app) list(t *show.Table, nothing string) error {
	if t.Len() == 0 {
		a.say("%s", nothing)
		return nil
	}
	return t.Write(a.Out)
}

// say tells the person something that is no answer.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }

// print writes a line of an answer.
func (a *app) print(format string, args ...any) { fmt.Fprintf(a.Out, format+"\n", args...) }

func (a *app) store() (profile.Store, error) {
	home, err := profile.Home()
	if err != nil {
		return profile.Store{}, err
	}
	return profile.In(home), nil
}

func (a *app) completions() ([]string, error) {
	s, err := a.store()
	if err != nil {
		return nil, err
	}
	return s.List()
}

// line reads a secret from standard input: all of it, without the line's end.
func (a *app) line(what string) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(a.In, 64<<10))
	if err != nil {
		return "", fmt.Errorf("read %s from standard input: %w", what, err)
	}
	s := strings.TrimRight(string(raw), "\r\n")
	if s == "" {
		return "", usage(errors.New("standard input was empty, it should hold " + what))
	}
	return s, nil
}
