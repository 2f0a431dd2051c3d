// Package machine reads, of the machine that a set runs on, the files that only root may read, and hands a snapshot of them to the one
// user who may ask. It promises that whoever asks can say nothing and so choose nothing; that the process which looks into what users
// could have written has no right left and nothing to open by then; and that no password leaves it, hashed or not. It relies on whoever
// starts it for the one capability that it has (CAP_DAC_READ_SEARCH), a user of its own and a network namespace with nothing in it, and
// on connector/unix for which files there are.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"time"

	"a3os.app/services/discoveryworker/internal/connector/unix"
)

const (
	// readTime is how long one reading may take, mostSnapshot how large its answer may be.
	readTime     = time.Minute
	mostSnapshot = 256 << 20
)

// Reader answers those who connect to its socket.
type Reader struct {
	// Socket is where it listens.
	Socket string
	// UID is who may ask.
	UID uint32
	// Closed are directories that stay closed to it, whatever it may read.
	Closed []string
	// Snapshot is the program that reads once and writes the answer to its standard output.
	Snapshot []string
}

// Run answers until ctx ends: one who asks at a time, each with a reading of that moment, by a process of its own.
func (r Reader) Run(ctx context.Context) error {
	if err := os.Remove(r.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", r.Socket)
	if err != nil {
		return fmt.Errorf("listen for who asks: %w", err)
	}
	defer l.Close()
	// Who may walk to it is decided by the directory, and who may ask by whom the kernel says it is.
	if err := os.Chmod(r.Socket, 0o666); err != nil {
		return err
	}
	if err := readOnly(r.Snapshot[0], r.Closed); err != nil {
		return err
	}
	slog.InfoContext(ctx, "reading the machine for who may ask", "socket", r.Socket, "uid", r.UID)
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was closed to end
		}
		if err != nil {
			return fmt.Errorf("wait for who asks: %w", err)
		}
		r.answer(ctx, conn.(*net.UnixConn)) //nolint:forcetypeassert // the listener is one of unix sockets
	}
}

// answer reads nothing of what was sent.
func (r Reader) answer(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	uid, err := peer(conn)
	if err == nil && uid == 0 {
		return // the supervisor, which looks whether anybody is there
	}
	if err != nil || uid != r.UID {
		slog.WarnContext(ctx, "somebody who may not ask for the machine was turned away", "uid", uid, "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	socket, err := conn.File()
	if err != nil {
		slog.ErrorContext(ctx, "the machine can't be read", "error", err)
		return
	}
	defer socket.Close()
	cmd := exec.CommandContext(ctx, r.Snapshot[0], r.Snapshot[1:]...)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = socket, os.Stderr
	if err := cmd.Run(); err != nil {
		slog.ErrorContext(ctx, "the machine was not read whole", "error", err)
		return
	}
	slog.InfoContext(ctx, "the machine was read")
}

// Snapshot reads the machine once and writes what it saw.
func Snapshot(ctx context.Context, w io.Writer) error {
	gathered, err := unix.Gather(ctx, "/")
	if err != nil {
		return err
	}
	// From here on it can open nothing and may do nothing: what users wrote is read now.
	if err := shutIn(); err != nil {
		return err
	}
	seen, err := gathered.Read()
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(seen)
}

// Ask makes a unix.Reader that asks at a socket.
func Ask(socket string) unix.Reader {
	return func(ctx context.Context) (*unix.Snapshot, error) {
		ctx, cancel := context.WithTimeout(ctx, readTime)
		defer cancel()
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
		var seen unix.Snapshot
		err = json.NewDecoder(io.LimitReader(conn, mostSnapshot)).Decode(&seen)
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it closed without an answer: see its log")
		}
		if err != nil {
			return nil, fmt.Errorf("read its answer: %w", errors.Join(err, ctx.Err()))
		}
		return &seen, nil
	}
}
