package command

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"a3os.app/libs/csvupload"
	"a3os.app/libs/fault"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

const csvFieldPrefix = "CSV_FIELD_"

// connection is what `integration add` was told.
type connection struct {
	postgres    integrationsv1.PostgresSettings
	caFile      string
	secretFile  string
	secretStdin bool

	hostName string

	systemName string
	file       string
	columns    []string

	schedule time.Duration
	replace  bool
}

// connectorFlags are the flags that go with each connector; those of no connector go with all.
var connectorFlags = map[string][]string{
	"postgres": {"host", "port", "user", "database", "ssl-mode", "ca-file", "secret-file", "secret-stdin"},
	"unix":     {"host-name"},
	"csv":      {"system", "file", "column"},
}

// connectorNeeds are those that must be given.
var connectorNeeds = map[string][]string{"postgres": {"host", "user"}, "csv": {"system", "file", "column"}}

func connectors() []string { return []string{"postgres", "unix", "csv"} }

func (a *app) addIntegration() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use: "add NAME CONNECTOR", Short: "Connect the workspace to a system",
		Long: `add connects the workspace to a system, by one of three connectors:

  postgres  a PostgreSQL server: --host --port --user --database --ssl-mode --ca-file, and its password by --secret-file or --secret-stdin
  unix      the worker's own machine, where the plane allows it: --host-name
  csv       an upload, for any system without an API: --system --file --column HEADER=FIELD …
            FIELD is account_id (required), display_name, email, resource, entitlement, group or status

The secret can be used afterwards, and never read back. With --replace, settings, secret and content of the connection of that name are
replaced by those that are given; what it found stays.`,
		Example: `  a3 integration add shop-db postgres --host db.acme.example --user a3_reader --database shop --secret-file pw.txt --schedule 6h
  a3 integration add this-machine unix
  a3 integration add shop-db postgres --replace --host db.acme.example --user a3_reader --database shop --secret-file new-pw.txt
  a3 integration add hr csv --system "HR suite" --file people.csv --column Id=account_id --column Mail=email --column App=resource --column Role=entitlement`,
		Args: exactly("NAME", "CONNECTOR"),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			return checkFlags(args[1], cmd.Flags())
		},
		RunE: a.doing(func(ctx context.Context, args []string) error { return a.add(ctx, args[0], args[1], &n) }),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return connectors(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&n.postgres.Host, "host", "", "postgres: host name or address")
	f.Uint32Var(&n.postgres.Port, "port", 5432, "postgres: TCP port")
	f.StringVar(&n.postgres.User, "user", "", "postgres: role to log in as; CONNECT is all it needs")
	f.StringVar(&n.postgres.Database, "database", "postgres", "postgres: database to connect to first")
	f.StringVar(&n.postgres.SslMode, "ssl-mode", "verify-full", "postgres: disable, require, verify-ca or verify-full")
	f.StringVar(&n.caFile, "ca-file", "", "postgres: PEM file with the authority of the server's certificate; else the machine's own")
	f.StringVar(&n.secretFile, "secret-file", "", "postgres: file with the password")
	f.BoolVar(&n.secretStdin, "secret-stdin", false, "postgres: read the password from standard input")
	f.StringVar(&n.hostName, "host-name", "", "unix: name to show the machine by; else its own")
	f.StringVar(&n.systemName, "system", "", "csv: name of the system that the file speaks of")
	f.StringVar(&n.file, "file", "", "csv: the file, 16 MiB at most")
	f.StringArrayVar(&n.columns, "column", nil, "csv: HEADER=FIELD, once for each column to be read")
	f.DurationVar(&n.schedule, "schedule", 0, "how often to discover, as 6h; only when asked, when not given")
	f.BoolVar(&n.replace, "replace", false, "change the connection of this name instead of making one")
	c.MarkFlagsMutuallyExclusive("secret-file", "secret-stdin")
	return c
}

// checkFlags refuses flags of another connector and names those that are missing.
func checkFlags(connector string, flags *pflag.FlagSet) error {
	if !slices.Contains(connectors(), connector) {
		return fmt.Errorf("%q is no connector: use %s", connector, strings.Join(connectors(), ", "))
	}
	for _, other := range connectors() {
		for _, name := range connectorFlags[other] {
			if other != connector && flags.Changed(name) {
				return fmt.Errorf("--%s goes with %s and not with %s", name, other, connector)
			}
		}
	}
	for _, name := range connectorNeeds[connector] {
		if !flags.Changed(name) {
			return fmt.Errorf("--%s is missing: %s needs it", name, connector)
		}
	}
	return nil
}

func (a *app) add(ctx context.Context, name, connector string, n *connection) error {
	req := &integrationsv1.CreateIntegrationRequest{Name: name, Settings: &integrationsv1.Settings{}}
	var content []byte
	var err error
	switch connector {
	case "postgres":
		if n.caFile != "" {
			pem, err := os.ReadFile(n.caFile)
			if err != nil {
				return usage(fmt.Errorf("read the authority: %w", err))
			}
			n.postgres.CaCertificatePem = string(pem)
		}
		if req.Secret, err = a.secret(n); err != nil {
			return err
		}
		req.Settings.Connector = &integrationsv1.Settings_Postgres{Postgres: &n.postgres}
	case "unix":
		req.Settings.Connector = &integrationsv1.Settings_Unix{Unix: &integrationsv1.UnixSettings{HostName: n.hostName}}
	case "csv":
		settings, err := csvSettings(n.systemName, n.columns)
		if err != nil {
			return usage(err)
		}
		if content, err = readContent(ctx, n.file, settings); err != nil {
			return err
		}
		req.Settings.Connector = &integrationsv1.Settings_Csv{Csv: settings}
	}
	const often, seldom = 5 * time.Minute, 31 * 24 * time.Hour
	if n.schedule != 0 && (n.schedule < often || n.schedule > seldom) {
		return usage(fmt.Errorf("--schedule %s: a schedule is from 5m to 744h", n.schedule))
	}
	if n.schedule != 0 {
		req.Schedule = durationpb.New(n.schedule)
	}
	t, err := a.enter(ctx)
	if err != nil {
		return err
	}
	if n.replace {
		return a.replace(ctx, t, req, content)
	}
	writes := within(t, integrationsv1connect.NewIntegrationWriteServiceClient)
	made, err := create(ctx, a, writes.CreateIntegration, req)
	if err != nil {
		return err
	}
	if content != nil {
		if made, err = upload(ctx, writes, made, content); err != nil {
			return err
		}
	}
	return a.showIntegration(made)
}

// replace changes the integration of a name to what a new one would be. A secret and a schedule that aren't given stay.
func (a *app) replace(ctx context.Context, t *tenant, want *integrationsv1.CreateIntegrationRequest, content []byte) error {
	i, err := t.findIntegration(ctx, want.GetName())
	if err != nil {
		return err
	}
	now, err := ask(ctx, within(t, integrationsv1connect.NewIntegrationServiceClient).GetIntegration, &integrationsv1.GetIntegrationRequest{IntegrationId: i})
	if err != nil {
		return err
	}
	req := &integrationsv1.UpdateIntegrationRequest{IntegrationId: i, Version: now.GetVersion(), Settings: want.GetSettings(), Schedule: want.GetSchedule()}
	if want.GetSecret() != "" {
		req.Secret = &want.Secret
	}
	writes := within(t, integrationsv1connect.NewIntegrationWriteServiceClient)
	if now, err = ask(ctx, writes.UpdateIntegration, req); err != nil {
		return err
	}
	if content != nil {
		ctx, cancel := context.WithTimeout(ctx, reachWithin)
		defer cancel()
		if now, err = ask(ctx, writes.UploadContent, &integrationsv1.UploadContentRequest{IntegrationId: i, Content: content}); err != nil {
			return fmt.Errorf("the settings were changed, the content was not taken: %w", err)
		}
	}
	return a.showIntegration(now)
}

// upload gives a new integration its content. Content that the tenant refuses takes the integration back, so that the command can be
// run again with a better file.
func upload(ctx context.Context, writes integrationsv1connect.IntegrationWriteServiceClient, made *integrationsv1.Integration, content []byte) (*integrationsv1.Integration, error) {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	res, err := ask(ctx, writes.UploadContent, &integrationsv1.UploadContentRequest{IntegrationId: made.GetId(), Content: content})
	if err == nil {
		return res, nil
	}
	if _, derr := ask(ctx, writes.DeleteIntegration, &integrationsv1.DeleteIntegrationRequest{IntegrationId: made.GetId()}); derr != nil {
		return nil, fmt.Errorf("the integration was made, its content was not taken; remove it with `a3 integration remove %s` and add it again: %w", made.GetId(), err)
	}
	return nil, err
}

func (a *app) secret(n *connection) (string, error) {
	switch {
	case n.secretStdin:
		return a.line("the secret")
	case n.secretFile != "":
		raw, err := os.ReadFile(n.secretFile)
		if err != nil {
			return "", usage(fmt.Errorf("read the secret: %w", err))
		}
		return strings.TrimRight(string(raw), "\r\n"), nil
	}
	return "", nil
}

func csvSettings(systemName string, columns []string) (*integrationsv1.CsvSettings, error) {
	s := &integrationsv1.CsvSettings{SystemName: systemName}
	for _, c := range columns {
		// The header may hold an equals sign, a field's name does not.
		at := strings.LastIndexByte(c, '=')
		if at < 1 {
			return nil, fmt.Errorf("--column %q is not of the form HEADER=FIELD", c)
		}
		field, ok := integrationsv1.CsvField_value[csvFieldPrefix+strings.ToUpper(c[at+1:])]
		if !ok || field == 0 {
			return nil, fmt.Errorf("--column %q: a field is one of %s", c, strings.Join(words(csvFieldPrefix, integrationsv1.CsvField_value), ", "))
		}
		s.Columns = append(s.Columns, &integrationsv1.CsvColumn{Header: c[:at], Field: integrationsv1.CsvField(field)})
	}
	return s, nil
}

// readContent reads an upload, and refuses it here as the tenant would: before anything is made or changed.
func readContent(ctx context.Context, file string, settings *integrationsv1.CsvSettings) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, usage(fmt.Errorf("read the content: %w", err))
	}
	if info.Size() > csvupload.MaxContent {
		return nil, fault.New(fault.InvalidArgument, "%s has %d bytes, at most %d are taken: split it by system", file, info.Size(), csvupload.MaxContent)
	}
	content, err := os.ReadFile(file) //nolint:gosec // the user names the file
	if err != nil {
		return nil, usage(fmt.Errorf("read the content: %w", err))
	}
	_, err = csvupload.Check(ctx, bytes.NewReader(content), settings)
	if bad, ok := csvupload.IsWrong(err); ok {
		return nil, usage(wrongUpload{file, bad})
	}
	return content, err
}

// wrongUpload is an upload that was refused, a line for each line of it that is wrong.
type wrongUpload struct {
	file string
	bad  *csvupload.Error
}

func (w wrongUpload) Error() string { return w.file + ": " + w.bad.Error() }

func (w wrongUpload) lines() []string {
	out := []string{w.file + ": " + w.bad.What}
	for _, row := range w.bad.Rows {
		out = append(out, "  "+row)
	}
	if n := w.bad.More(); n > 0 {
		out = append(out, fmt.Sprintf("  and %d more", n))
	}
	return out
}
