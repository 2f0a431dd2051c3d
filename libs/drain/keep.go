package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
)

// Keep keeps a socket open until ctx ends, and hands it to whoever connects to doors and runs as a user: where who serves can't be given
// a descriptor when it is started (see Inherit), because another program starts it. Who connects while nobody serves waits in the
// socket's queue. The connection on which it was handed over stays open for as long as the socket is kept.
func Keep(ctx context.Context, l *net.TCPListener, doors *net.UnixListener, user uint32) error {
	socket, err := l.File()
	if err = errors.Join(err, l.Close()); err != nil {
		return fmt.Errorf("keep the socket at %s: %w", l.Addr(), err)
	}
	defer socket.Close()
	stop := context.AfterFunc(ctx, func() { _ = doors.Close() })
	defer stop()
	var holders sync.WaitGroup
	defer holders.Wait()
	for {
		conn, err := doors.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("wait for who serves on %s: %w", l.Addr(), err)
		}
		holders.Go(func() {
			defer conn.Close()
			unhand := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer unhand()
			if err := hand(conn, socket, user); err != nil {
				slog.WarnContext(ctx, "a socket was not handed over", "address", l.Addr().String(), "error", err)
				return
			}
			// It says nothing more: this is how its end is noticed.
			_, _ = conn.Read(make([]byte, 1))
		})
	}
}

func hand(conn *net.UnixConn, socket *os.File, user uint32) error {
	is, err := peer(conn)
	if err != nil {
		return err
	}
	if is != user {
		return fmt.Errorf("user %d asks for it, and it is user %d's", is, user)
	}
	_, _, err = conn.WriteMsgUnix([]byte{0}, syscall.UnixRights(int(socket.Fd())), nil) //nolint:gosec // a descriptor is a small number
	return err
}

// taken is a socket that another process keeps.
type taken struct {
	net.Listener
	keeper *net.UnixConn
}

func (t *taken) Close() error {
	_ = t.keeper.Close()
	return t.Listener.Close()
}

// Take has a socket handed over by whoever keeps it (see Keep) at a path. Serve ends on it as on one that was inherited. It is closed
// when who kept it is gone, so that nobody serves on a socket where nobody arrives any more.
func Take(ctx context.Context, path string) (net.Listener, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("nobody keeps a socket: %w", err)
	}
	keeper, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is no socket of this machine", path), conn.Close())
	}
	fd, err := receive(keeper)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s hands no socket over: %w", path, err), keeper.Close())
	}
	l, err := Inherit(fd)
	if err != nil {
		return nil, errors.Join(err, keeper.Close())
	}
	out := &taken{Listener: l, keeper: keeper}
	go func() {
		_, _ = keeper.Read(make([]byte, 1))
		_ = out.Close()
	}()
	return out, nil
}

func receive(conn *net.UnixConn) (fd int, err error) {
	const room = 64
	said, rights := make([]byte, 1), make([]byte, room)
	_, n, _, _, err := conn.ReadMsgUnix(said, rights)
	if err != nil {
		return 0, err
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return 0, errors.Join(errors.New("it is asked by another user than it serves"), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, errors.Join(fmt.Errorf("it gave %d descriptors", len(fds)), err)
	}
	syscall.CloseOnExec(fds[0])
	return fds[0], nil
}
