package systemtest

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

// awsFaults befall single calls of a set's, on their way to an emulator of AWS.
type awsFaults struct {
	// busy is how many readings of the credential of, an integration, Secrets Manager still throttles, and throttled how many it did.
	busy, throttled atomic.Int64
	of              atomic.Value
	// whole is how many readings of an object go through between two that are cut off in the middle; none is where it is negative. cut is how many
	// were.
	whole, read, cut atomic.Int64
}

// befall answers a call itself, and says so, where a fault befalls it.
func (f *awsFaults) befall(w http.ResponseWriter, r *http.Request, server string) bool {
	switch {
	case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/"+awsBucket+"/") && !strings.HasSuffix(r.URL.Path, "MARK"):
		if whole := f.whole.Load(); whole < 0 || f.read.Add(1)%(whole+1) != 0 {
			return false
		}
		f.cut.Add(1)
		breakOff(w, r, server)
		return true
	case strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetSecretValue"):
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		of, _ := f.of.Load().(string)
		if err != nil || of == "" || !bytes.Contains(body, []byte(of)) || f.busy.Add(-1) < 0 {
			return false
		}
		f.throttled.Add(1)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"ThrottlingException","message":"Rate exceeded"}`))
		return true
	}
	return false
}

// breakOff answers the first half of what a server answers, and ends the connection.
func breakOff(w http.ResponseWriter, r *http.Request, server string) {
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = "http", strings.TrimPrefix(server, "http://")
	res, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range res.Header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// Row F28: a run's credential is read while Secrets Manager throttles: by a worker that read it before, from its memory; and by one that was killed since,
// which is refused more often than it asks in one try, and tries again.
func (c *cloud) credentialThrottled(x *tenant, owner *person, workspace, integration string) (cases int) {
	t := c.t
	t.Helper()
	f := &c.faults
	f.of.Store(integration)
	f.busy.Store(0)
	owner.discover(t, workspace, integration)
	const always = 1 << 20
	f.busy.Store(always)
	owner.discover(t, workspace, integration)
	if n := f.throttled.Swap(0); n == 0 {
		t.Error("a credential was read, and nobody throttled it")
	}
	f.busy.Store(0)
	cases++

	worker := x.id + "/discovery-worker"
	before := c.plane.pids(t)[worker]
	kill(t, before)
	c.plane.serves(t, worker, before)
	// triesForget of secretsmanager is how often it asks in one try.
	const inOneTry, more = 8, 4
	f.busy.Store(inOneTry + more)
	owner.discover(t, workspace, integration)
	if n := f.throttled.Swap(0); n != inOneTry+more {
		t.Errorf("who was killed since read a credential that was throttled %d times, want %d", n, inOneTry+more)
	}
	return cases + 1
}

// Row F29: what a run reads from S3 breaks off in the middle, each time. Where nothing of it could be handed over the run fails, and else it is partial, with
// what it did not read named. What was discovered before stands.
func (c *cloud) readingBroken(x *tenant, owner *person, workspace string) (cases int) {
	t := c.t
	t.Helper()
	// Some batches, of which half of the content has more than one.
	const rows = 2000
	i := owner.upload(t, workspace, people(rows))
	conn := c.plane.superuser(t, "postgres", x.id)
	shown := func() (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM discovery.grants WHERE integration_id = $1 AND until IS NULL", uuidOf(t, i.GetId())).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	owner.discover(t, workspace, i.GetId())
	if n := shown(); n != rows {
		t.Fatalf("of an upload of %d rows there are %d grants", rows, n)
	}
	f := &c.faults
	// It is read once to see that it is right, and then once more.
	for _, o := range []struct {
		whole int64
		ends  integrationsv1.RunState
	}{{0, integrationsv1.RunState_RUN_STATE_FAILED}, {1, integrationsv1.RunState_RUN_STATE_PARTIAL}} {
		f.read.Store(0)
		f.cut.Store(0)
		f.whole.Store(o.whole)
		run := ask(t, client(owner, workspace, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: i.GetId()})
		done := owner.outlast(t, workspace, run.GetId())
		f.whole.Store(-1)
		// SliceTries of discovery's runs.
		const tries = 5
		if n := f.cut.Load(); n != tries {
			t.Errorf("what it read was cut off %d times, want %d", n, tries)
		}
		if done.GetState() != o.ends || o.ends == integrationsv1.RunState_RUN_STATE_PARTIAL && len(done.GetGaps()) == 0 {
			t.Errorf("a run whose reading breaks off ended as %s, want %s: %s, with the gaps %v", done.GetState(), o.ends, done.GetError(), done.GetGaps())
		}
		if n := shown(); n != rows {
			t.Errorf("after a run that ended as %s there are %d grants, and were %d before it", done.GetState(), n, rows)
		}
		cases++
	}
	owner.discover(t, workspace, i.GetId())
	if n := shown(); n != rows {
		t.Errorf("after a run that read all of it there are %d grants", n)
	}
	return cases
}
