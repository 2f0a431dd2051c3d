package command

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/libs/clip"
	"a3os.app/libs/fault"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	"a3os.app/tools/a3/internal/witness"
	"a3os.app/tools/internal/show"
)

// layoutPrefix is where the tenant serves its log as C2SP tlog-tiles lays it out.
const layoutPrefix = "/audit/v1/log/"

func (a *app) exportCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use: "export", Short: "Copy the whole log into files that prove themselves",
		Long: `export copies the log as C2SP tlog-tiles lays it out, with every signed checkpoint and the log's key, and verifies the copy. What it wrote
needs no service to be verified: see "a3 audit verify --from". Interrupted, it goes on where it was when it is run again; run again
later, it adds what is new. A name that ends in .zip makes one file.`,
		Example: `  a3 audit export --to acme-audit
  a3 audit export --to acme-audit-2026.zip`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error { return a.export(ctx, to) }),
	}
	c.Flags().StringVar(&to, "to", "", "directory, or file that ends in .zip (default: PROFILE-audit)")
	return c
}

// exported is what was written, for programs.
type exported struct {
	To          string `json:"to"`
	Whole       bool   `json:"whole"`
	Entries     uint64 `json:"entries"`
	Checkpoints int    `json:"checkpoints"`
	VerifierKey string `json:"verifier_key"`
}

func (a *app) export(ctx context.Context, to string) error {
	t, err := a.open()
	if err != nil {
		return err
	}
	if to == "" {
		to = t.profile.Name + "-audit"
	}
	dir, zipped := strings.CutSuffix(to, ".zip")
	if zipped {
		// A .zip can't be gone on with, so it is packed from a directory that can.
		dir += ".zip.unfinished"
	}
	file := witness.File(t.store.Home(), t.profile.Name)
	memory, err := witness.Recall(file)
	if err != nil {
		return err
	}
	client := across(t, auditv1connect.NewLogServiceClient)
	now, err := ask(ctx, client.GetCheckpoint, &auditv1.GetCheckpointRequest{})
	if err != nil {
		return err
	}
	verifier, err := trusted(memory, file, "", now.GetVerifierKey())
	if err != nil {
		return err
	}
	last := time.Now()
	e := tlog.Export{Dir: dir, Key: verifier.String(), Checkpoint: now.GetCheckpoint(), Fetch: t.fetchLog,
		Checkpoints: tlog.RemoteCheckpoints(client), Progress: func(done, total uint64) {
			const every = 2 * time.Second
			if time.Since(last) > every {
				last = time.Now()
				a.say("%d of %d entries", done, total)
			}
		}}
	earlier, err := e.Run(ctx)
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("the export was interrupted: run the same command again to go on where it was (%s): %w", dir, err)
	}
	if err != nil {
		return err
	}
	if memory != nil {
		earlier = memory.Checkpoint
	}
	report, err := tlog.Verify(ctx, tlog.OpenArchive(os.DirFS(dir)), verifier, earlier)
	if err != nil {
		return err
	}
	if !report.Whole() {
		if err := a.showVerdict(report, verifier); err != nil {
			return err
		}
		return fmt.Errorf("the log that was exported to %s is not whole (%s from entry %d on)", dir, report.Findings[0].Kind, report.Findings[0].From)
	}
	if zipped {
		if err := pack(to, dir); err != nil {
			return err
		}
	}
	if a.json() {
		return show.JSON(a.Out, exported{To: to, Whole: true, Entries: report.Entries, Checkpoints: report.Checkpoints, VerifierKey: verifier.String()})
	}
	a.print("exported %s under %s to %s, and verified there", show.Count(int64(report.Entries), "entry", "entries"), //nolint:gosec // a log of 2^63 entries is not read
		show.Count(int64(report.Checkpoints), "checkpoint"), to)
	a.print("its key: %s", verifier)
	return nil
}

// fetchLog reads a file of the log's layout.
func (t *tenant) fetchLog(ctx context.Context, path string) ([]byte, error) {
	// A body that is none can be sent again, which lets the client renew a token that was refused.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(t.profile.URL, "/")+layoutPrefix+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	token, err := t.TokenFor("")(ctx)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := t.API("").Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the tenant can't be reached")
	}
	defer res.Body.Close()
	const most = tlog.TileWidth*(tlog.MaxLeaf+2) + 1
	body, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the connection broke")
	}
	if res.StatusCode != http.StatusOK {
		return nil, fault.New(kindOfStatus(res.StatusCode), "the log answered %d: %s", res.StatusCode, show.Text(clip.Text(strings.TrimSpace(string(body)), 500)))
	}
	return body, nil
}

func kindOfStatus(status int) fault.Kind {
	switch status {
	case http.StatusUnauthorized:
		return fault.Unauthenticated
	case http.StatusForbidden:
		return fault.PermissionDenied
	case http.StatusNotFound:
		return fault.NotFound
	case http.StatusConflict:
		return fault.FailedPrecondition
	case http.StatusTooManyRequests:
		return fault.ResourceExhausted
	case http.StatusServiceUnavailable:
		return fault.Unavailable
	}
	return fault.Internal
}

// pack makes one file of an export, whole or not at all, and removes the directory.
func pack(to, dir string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(to), ".export-*")
	if err != nil {
		return fmt.Errorf("pack the export: %w", err)
	}
	z := zip.NewWriter(f)
	err = errors.Join(z.AddFS(os.DirFS(dir)), z.Close(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err != nil {
		return fmt.Errorf("pack the export: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return os.RemoveAll(dir)
}

// readCheckpoints reads files with a signed note each.
func readCheckpoints(files []string) ([]string, error) {
	var notes []string
	for _, file := range files {
		raw, err := os.ReadFile(file) //nolint:gosec // the caller's own
		if err != nil {
			return nil, usage(fmt.Errorf("--checkpoint: %w", err))
		}
		notes = append(notes, string(raw))
	}
	return notes, nil
}

// verifyExport verifies an export, by what lies in it and nothing else.
func (a *app) verifyExport(ctx context.Context, from, key string, kept []string) error {
	files, closeFiles, err := openExport(from)
	if err != nil {
		return usage(fmt.Errorf("--from: %w", err))
	}
	defer closeFiles()
	archive := tlog.OpenArchive(files)
	shown, err := archive.VerifierKey()
	if err != nil {
		return err
	}
	if key == "" {
		a.say("the key is the export's own: compare %s with the one that you were given, or give that with --verifier-key", shown)
		key = shown
	}
	if shown != key {
		return fault.New(fault.FailedPrecondition, "the export is of a log with another key than the one to trust (%s instead of %s)", shown, key)
	}
	verifier, err := tlog.NewVerifier(key)
	if err != nil {
		return err
	}
	report, err := tlog.Verify(ctx, archive, verifier, kept...)
	if err != nil {
		return err
	}
	if err := a.showVerdict(report, verifier); err != nil || report.Whole() {
		return err
	}
	return fmt.Errorf("the exported log is not whole (%s from entry %d on): keep it as it is, and export the log anew to see whether the log or this copy was changed",
		report.Findings[0].Kind, report.Findings[0].From)
}

func openExport(from string) (fs.FS, func(), error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() {
		return os.DirFS(from), func() {}, nil
	}
	z, err := zip.OpenReader(from)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is neither a directory nor a .zip: %w", from, err)
	}
	return z, func() { _ = z.Close() }, nil
}
