package pgserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// minFree is what a new cluster and its first write-ahead log need, with room to work.
const minFree = 256 << 20

// Init makes the cluster if it isn't made: SCRAM for every connection, a random password for the superuser, data
// checksums, UTF-8 with the C collation (the same order on every machine). It builds under a temporary name and renames,
// so that a cluster is there whole or not at all, and clears away what an interrupted Init left. Errors: ErrDiskFull, or
// what initdb said.
func (s *Server) Init(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.dataDir(), "PG_VERSION")); err == nil {
		return s.checkMajor()
	}
	if entries, err := os.ReadDir(s.cfg.Dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s holds something that is no PostgreSQL cluster of ours: move it away or choose another directory", s.cfg.Dir)
	}
	parent := filepath.Dir(s.cfg.Dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("make the directory above the cluster: %w", err)
	}
	if !s.account.reaches(s.cfg.Dir) || !s.runsAs().reaches(s.cfg.Dir) {
		return fmt.Errorf("user %s, as whom PostgreSQL runs, can't reach %s: choose a directory outside of private homes (pgserver.DirFor names one), or work as an ordinary user",
			s.account.name, s.cfg.Dir)
	}
	if err := checkSpace(parent); err != nil {
		return err
	}
	leftovers, err := filepath.Glob(s.cfg.Dir + ".making-*")
	if err != nil {
		return fmt.Errorf("look for interrupted work beside %s: %w", s.cfg.Dir, err)
	}
	for _, leftover := range leftovers {
		if err := os.RemoveAll(leftover); err != nil {
			return fmt.Errorf("clear away interrupted work: %w", err)
		}
	}
	making, err := os.MkdirTemp(parent, filepath.Base(s.cfg.Dir)+".making-")
	if err != nil {
		return fmt.Errorf("make a working directory beside the cluster: %w", err)
	}
	if err := s.initIn(ctx, making); err != nil {
		return errors.Join(err, os.RemoveAll(making))
	}
	// An empty directory that somebody made beforehand may stand there: rename replaces it.
	if err := os.Rename(making, s.cfg.Dir); err != nil {
		return errors.Join(fmt.Errorf("put the new cluster in its place: %w", err), os.RemoveAll(making))
	}
	return nil
}

func (s *Server) initIn(ctx context.Context, making string) error {
	// The server's user walks through here to data/ and no further: the password beside it is not its to read.
	mode := os.FileMode(0o700)
	if s.account.other {
		mode = 0o711
	}
	if err := os.Chmod(making, mode); err != nil {
		return fmt.Errorf("prepare the cluster's directory: %w", err)
	}
	data, password := filepath.Join(making, "data"), filepath.Join(making, "superuser.password")
	if err := s.account.makeDir(data, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	if err := os.WriteFile(password, []byte(rand.Text()), 0o600); err != nil {
		return fmt.Errorf("write the superuser's password: %w", err)
	}
	if err := s.account.own(password); err != nil {
		return fmt.Errorf("hand the password to initdb: %w", err)
	}
	args := []string{
		"-D", data, "-U", Superuser, "--pwfile=" + password, "--auth=scram-sha-256",
		"--data-checksums", "--encoding=UTF8", "--no-locale", "--no-instructions",
	}
	if s.cfg.Throwaway {
		args = append(args, "--no-sync")
	}
	if _, err := s.make(ctx, data, "", "initdb", args...); err != nil {
		return err
	}
	if err := s.reserve(ctx, data); err != nil {
		return err
	}
	if err := s.handOver(data); err != nil {
		return fmt.Errorf("give the data to the server's user: %w", err)
	}
	if s.account.other && !s.cfg.Throwaway {
		if err := os.Lchown(password, os.Geteuid(), os.Getegid()); err != nil {
			return fmt.Errorf("take the password back from initdb: %w", err)
		}
	}
	if s.cfg.Throwaway { // the guard that removes it runs as the server's user
		if err := s.account.own(making); err != nil {
			return fmt.Errorf("hand the throwaway cluster to its guard: %w", err)
		}
	}
	return nil
}

// walSize is what the write-ahead log of a private server takes on its disk, and keeps. PostgreSQL begins a checkpoint when half of it is written
// since the last one (max_wal_size ÷ (1 + checkpoint_completion_target)), and has ended it before the rest is.
const walSize = 128 << 20

// reserve has a new cluster's log written to the size that it keeps: from then on it is written into files that are there, again and again, and
// needs no room. Without that, a disk that others fill ends the server as soon as the file that it writes is full, and keeps it from coming back:
// reads would end with writes.
func (s *Server) reserve(ctx context.Context, data string) error {
	if s.cfg.Throwaway {
		return nil
	}
	const piece = 1 << 20
	// No checkpoint may come before all of it is written: what is written after one goes into the files before it.
	said, err := s.make(ctx, data, fmt.Sprintf("SELECT count(pg_logical_emit_message(false, 'reserve', repeat('0', %d))) FROM generate_series(1, %d)", piece, walSize/piece),
		"postgres", "--single", "-D", data, "-c", fmt.Sprintf("min_wal_size=%dMB", walSize>>20), "-c", fmt.Sprintf("max_wal_size=%dMB", 4*walSize>>20), "postgres")
	if err != nil {
		return err
	}
	// It ends well whatever became of the statement.
	files, err := filepath.Glob(filepath.Join(data, "pg_wal", strings.Repeat("[0-9A-F]", 24)))
	if err != nil {
		return err
	}
	var kept int64
	for _, file := range files {
		if info, err := os.Stat(file); err == nil {
			kept += info.Size()
		}
	}
	if kept < walSize {
		return fmt.Errorf("the new cluster's log takes %d MB of its disk and is to keep %d; PostgreSQL said: %s", kept>>20, walSize>>20, lastLines(said, 5))
	}
	return nil
}

// make runs one of PostgreSQL's programs, which works on data that are being made, and answers what it said.
func (s *Server) make(ctx context.Context, data, input, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.cfg.Binaries.path(program), args...)
	cmd.Dir = data
	cmd.Env = environment()
	// A group of its own: initdb starts servers, and an interrupt ends all of them together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.account.credential(), Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &said, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("%s was interrupted: %w", program, context.Cause(ctx))
		}
		if strings.Contains(said.String(), "No space left on device") {
			return "", fmt.Errorf("%w: %s could not write to %s, free %d MB there", ErrDiskFull, program, filepath.Dir(data), minFree>>20)
		}
		return "", fmt.Errorf("%s failed (%w) and said: %s", cmd.Path, err, lastLines(said.String(), 5))
	}
	return said.String(), nil
}

func checkSpace(dir string) error {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("ask for the free space in %s: %w", dir, err)
	}
	if free := stat.Bavail * uint64(stat.Bsize); free < minFree { //nolint:gosec // a block's size is small and positive
		return fmt.Errorf("%w: %s has %d MB free and a new PostgreSQL cluster needs %d: free some, or choose another directory",
			ErrDiskFull, dir, free>>20, minFree>>20)
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
