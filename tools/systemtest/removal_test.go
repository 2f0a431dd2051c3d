package systemtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

// probes are a method at each component that knows whether a token still stands, whatever else it thinks of it.
func probes(t testing.TB) map[string]rpcMethod {
	t.Helper()
	return map[string]rpcMethod{
		"iam":              methodNamed(t, "/a3os.iam.v1.IdentityService/GetSelf"),
		"integrations":     methodNamed(t, "/a3os.integrations.v1.IntegrationService/ListIntegrations"),
		"discovery":        methodNamed(t, "/a3os.discovery.v1.RunService/ListRuns"),
		"audit":            methodNamed(t, "/a3os.audit.v1.AuditService/ListEvents"),
		"discovery-worker": methodNamed(t, "/a3os.discovery.v1.ConnectorService/TestSource"),
	}
}

// accepts fails the test unless every service of the tenant believes the token.
func (x *tenant) accepts(t *testing.T, token string) {
	t.Helper()
	for component, m := range probes(t) {
		if a := past(t, x, component).bearer(token).call(t, m, nil); a.code == "unauthenticated" {
			t.Fatalf("%s doesn't know the token to begin with: %s", component, a)
		}
	}
}

// refusesWithin fails the test unless every service of the tenant refuses the token soon enough from now on.
func (x *tenant) refusesWithin(t *testing.T, token string, soon time.Duration) {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for component, m := range probes(t) {
		c := past(t, x, component).bearer(token)
		wg.Go(func() {
			took, ended := c.ends(t, m, "{}", began, 50*time.Millisecond, soon, func(a answer) bool { return a.code == "unauthenticated" })
			if ended {
				t.Logf("%s refuses it after %s", component, took.Round(time.Millisecond))
			}
		})
	}
	wg.Wait()
}

// ends calls the method again and again until that is refused, and answers how long after began it was. What is sent later than soon has to be
// refused, and one call is sent right then, whatever became of those before it. A call is let in when it comes: of one that came before, and
// that a machine with much to do answers after, nothing else was promised.
func (c caller) ends(t *testing.T, m rpcMethod, body string, began time.Time, every, soon time.Duration, refused func(answer) bool) (took time.Duration, ended bool) {
	t.Helper()
	call := func() (took time.Duration, ended, again bool) {
		sent := time.Since(began)
		a, err := c.try(t, m.path(), contentType(m, "json"), frame(m, []byte(body)))
		took = time.Since(began)
		switch {
		case err != nil:
			t.Errorf("%s: %v", m.path(), err)
		case took-sent > soon:
			t.Errorf("%s took %s to answer %s", m.path(), took-sent, a)
		case refused(a):
			return took, true, false
		case sent >= soon:
			t.Errorf("%s, sent after %s, is still answered %s", m.path(), sent, a)
		default:
			return took, false, true
		}
		return took, false, false
	}
	done := make(chan struct{})
	var last sync.WaitGroup
	last.Go(func() {
		select {
		case <-done:
		case <-time.After(time.Until(began.Add(soon))):
			call()
		}
	})
	tick := time.NewTicker(every)
	defer tick.Stop()
	for again := true; again; {
		<-tick.C
		took, ended, again = call()
	}
	close(done)
	last.Wait()
	return took, ended
}

// Row T11, of a member.
func TestRemovedMemberIsRefusedWithinFiveSeconds(t *testing.T) {
	full(t)
	t.Parallel()
	owner, member := acme().invite(t), acme().invite(t)
	w := acme().workspace(t, owner)
	member.join(t, owner, w.GetId(), iamv1.WorkspaceRole_WORKSPACE_ROLE_MEMBER)
	token := member.token(t, w.GetId())
	acme().accepts(t, token)
	ask(t, client(owner, w.GetId(), iamv1connect.NewMemberWriteServiceClient).RemoveMember, &iamv1.RemoveMemberRequest{PrincipalId: member.id})
	acme().refusesWithin(t, token, endsWithin)
	if _, err := member.anew(t, w.GetId()); err == nil {
		t.Error("a removed member gets a new token for the workspace")
	}
	t.Attr("row", fmt.Sprintf("T11 %d", len(probes(t))))
}

// Row T11, of a user and all of their sessions.
func TestDeactivatedUserIsRefusedWithinFiveSeconds(t *testing.T) {
	full(t)
	t.Parallel()
	user := acme().invite(t)
	token := user.token(t, "")
	acme().accepts(t, token)
	ask(t, client(acme().admin(t), "", iamv1connect.NewUserWriteServiceClient).DeactivateUser, &iamv1.DeactivateUserRequest{UserId: user.id, Reason: "left the company"})
	acme().refusesWithin(t, token, endsWithin)
	if _, err := user.anew(t, ""); err == nil {
		t.Error("a deactivated user gets a new token")
	}
	t.Attr("row", fmt.Sprintf("T11 %d", len(probes(t))))
}

// Row T11, of one session of somebody who goes on with another.
func TestRevokedSessionIsRefusedWithinFiveSeconds(t *testing.T) {
	full(t)
	t.Parallel()
	user := acme().invite(t)
	ended := user.token(t, "")
	acme().accepts(t, ended)
	p := user.signsOut(t)
	acme().refusesWithin(t, ended, endsWithin)
	if _, err := user.anew(t, ""); err == nil {
		t.Error("a session that was revoked gets a new token")
	}
	// It is the session that ended, and not the user.
	s := shared.tryA3(t, "acme-admin", "-o", "json", "user", "reinvite", user.email, "--reason", "lost the device that was signed in")
	var answer struct{ SetupCode string }
	if err := json.Unmarshal([]byte(s.out), &answer); err != nil || answer.SetupCode == "" {
		t.Fatalf("reinvite: %s", s)
	}
	again := name("again")
	shared.a3(t, again, "login", "--url", acme().url, "--ca-cert", shared.store().Path(p.CACert), "--dial", shared.address(), "--setup-code", answer.SetupCode)
	acme().accepts(t, strings.TrimSpace(shared.a3(t, again, "token")))
	t.Attr("row", fmt.Sprintf("T11 %d", len(probes(t))))
}

// Row W26. A run that a stopped worker can't take is one that can be watched for as long as the test likes.
func TestStreamOfARemovedMemberEnds(t *testing.T) {
	full(t)
	owner, member := globex().invite(t), globex().invite(t)
	w := globex().workspace(t, owner).GetId()
	member.join(t, owner, w, iamv1.WorkspaceRole_WORKSPACE_ROLE_MEMBER)
	integration := owner.upload(t, w, "account,email,app,right\nann,,payroll,admin\n")
	resume := globex().pause(t, "discovery-worker")
	run := ask(t, client(owner, w, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: integration.GetId()})
	watch := methodNamed(t, "/a3os.discovery.v1.RunService/WatchRun")
	streams := map[string]*watching{
		"removed": open(t, through(t, globex()).bearer(member.token(t, w)), watch, `{"runId":"`+run.GetId()+`"}`),
		"stays":   open(t, through(t, globex()).bearer(owner.token(t, w)), watch, `{"runId":"`+run.GetId()+`"}`),
	}
	for who, s := range streams {
		if first := s.next(t, 10*time.Second); !strings.Contains(first, run.GetId()) {
			t.Fatalf("%s: the stream begins with %s", who, first)
		}
	}
	ask(t, client(owner, w, iamv1connect.NewMemberWriteServiceClient).RemoveMember, &iamv1.RemoveMemberRequest{PrincipalId: member.id})
	removedAt := time.Now()
	last := streams["removed"].end(t, endsWithin)
	t.Logf("the stream ended after %s with %s", time.Since(removedAt).Round(time.Millisecond), last)
	if !strings.Contains(last, "unauthenticated") {
		t.Errorf("the stream ended without saying why: %s", last)
	}
	resume()
	if last := streams["stays"].end(t, time.Minute); strings.Contains(last, "error") {
		t.Errorf("the owner's stream ended with %s", last)
	}
	if done := owner.await(t, w, run.GetId()); done.GetError() != "" {
		t.Errorf("the run ended with %s", done.GetError())
	}
	t.Attr("row", "W26 1")
}

// pause stops a service's process as it is, until resume.
func (x *tenant) pause(t *testing.T, component string) (resume func()) {
	t.Helper()
	return x.plane.pause(t, x.id+"/"+component)
}

func (p *plane) pause(t *testing.T, process string) (resume func()) {
	t.Helper()
	pid := p.pids(t)[process]
	if pid == 0 {
		t.Fatalf("%s doesn't run", process)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume = sync.OnceFunc(func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Errorf("let %s go on: %v", process, err)
		}
	})
	t.Cleanup(resume)
	return resume
}

// watching is an open stream.
type watching struct {
	frames chan string
	failed error
}

// open calls a streaming method and reads its frames as they come.
func open(t *testing.T, c caller, m rpcMethod, msg string) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+m.path(), bytes.NewReader(frame(m, []byte(msg))))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = c.header.Clone()
	req.Header.Set("Content-Type", contentType(m, "json"))
	res, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	w := &watching{frames: make(chan string, 1024)}
	go func() {
		defer close(w.frames)
		defer res.Body.Close()
		w.failed = w.read(res.Body)
	}()
	return w
}

func (w *watching) read(body io.Reader) error {
	r := bufio.NewReader(body)
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(r, head); err != nil {
			return err
		}
		text := make([]byte, int(head[1])<<24|int(head[2])<<16|int(head[3])<<8|int(head[4]))
		if _, err := io.ReadFull(r, text); err != nil {
			return err
		}
		const endOfStream = 2
		if head[0]&endOfStream != 0 {
			w.frames <- "end " + string(text)
			return nil
		}
		w.frames <- string(text)
	}
}

func (w *watching) next(t *testing.T, d time.Duration) string {
	t.Helper()
	select {
	case f, ok := <-w.frames:
		if !ok {
			return fmt.Sprint("broken off: ", w.failed)
		}
		return f
	case <-time.After(d):
		t.Fatalf("nothing came within %s", d)
		return ""
	}
}

// end waits for the stream's end and answers its last frame.
func (w *watching) end(t *testing.T, d time.Duration) string {
	t.Helper()
	deadline := time.Now().Add(d)
	for {
		f := w.next(t, time.Until(deadline))
		if strings.HasPrefix(f, "end ") || strings.HasPrefix(f, "broken off") {
			return f
		}
	}
}
