package supervise_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/supervise"
)

// pidAt is who answers on a connection.
func pidAt(t *testing.T, c net.Conn) (pid int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://unit/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	const most = 20 * time.Second
	if err := errors.Join(c.SetDeadline(time.Now().Add(most)), req.Write(c)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// Who comes while no process of a unit serves is answered by the next one, whether the one before was replaced or killed. With the unit
// goes its socket.
func TestWhoComesBetweenTwoProcessesIsAnsweredByTheNext(t *testing.T) {
	dir, c := started(t)
	u := server(t, dir, "door")
	u.Listens, u.Ready = address(t), ""
	real := u.Args
	dial := func() net.Conn {
		t.Helper()
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "tcp", u.Listens)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}

	path := u.Path
	u.Path, u.Args = "/bin/sh", []string{"-c", "exec sleep 600"} // it accepts nobody
	kept(t, c, u)
	waiting := dial()
	u.Path, u.Args = path, real
	u.Args[1] = inherited
	first := kept(t, c, u)
	if first.Listens != u.Listens {
		t.Errorf("it is said to listen on %q", first.Listens)
	}
	if pid := pidAt(t, waiting); pid != first.PID {
		t.Errorf("%d answered and not %d, who came next", pid, first.PID)
	}

	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := dial()
	if pid := pidAt(t, killed); pid == first.PID || pid == 0 {
		t.Errorf("%d answered, and %d was killed", pid, first.PID)
	}

	if _, err := c.Drop(t.Context(), u.Name); err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	if conn, err := d.DialContext(t.Context(), "tcp", u.Listens); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			_ = conn.Close()
		}
		t.Errorf("the unit is gone, and who connects gets %v", err)
	}
}

// A socket that can't be had is the unit's trouble, told as how it ended.
func TestSocketThatIsTakenIsToldOfTheUnit(t *testing.T) {
	dir, c := started(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u := server(t, dir, "door")
	u.Listens = l.Addr().String()
	if _, err := c.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	until(t, "it backs off", func() bool { return status(t, c, u.Name).State == supervise.BackingOff })
	if s := status(t, c, u.Name); s.Listens != "" || s.PID != 0 {
		t.Errorf("it is %+v", s)
	}
}
