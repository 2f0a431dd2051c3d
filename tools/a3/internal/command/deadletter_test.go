package command_test

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

func (f *fake) ListDeadLetters(_ context.Context, req *connect.Request[discoveryv1.ListDeadLettersRequest]) (*connect.Response[discoveryv1.ListDeadLettersResponse], error) {
	all, err := given[discoveryv1.ListDeadLettersResponse](f, "ListDeadLetters")
	if err != nil {
		return nil, err
	}
	items, next := page(all.Msg.GetDeadLetters(), req.Msg.GetPageSize(), req.Msg.GetPageToken())
	return connect.NewResponse(&discoveryv1.ListDeadLettersResponse{DeadLetters: items, NextPageToken: next}), nil
}

func (f *fake) GetDeadLetter(context.Context, *connect.Request[discoveryv1.GetDeadLetterRequest]) (*connect.Response[discoveryv1.DeadLetter], error) {
	return given[discoveryv1.DeadLetter](f, "GetDeadLetter")
}

func (f *fake) RetryDeadLetter(context.Context, *connect.Request[discoveryv1.RetryDeadLetterRequest]) (*connect.Response[discoveryv1.DeadLetter], error) {
	return given[discoveryv1.DeadLetter](f, "RetryDeadLetter")
}

func (f *fake) DropDeadLetter(context.Context, *connect.Request[discoveryv1.DropDeadLetterRequest]) (*connect.Response[discoveryv1.DeadLetter], error) {
	return given[discoveryv1.DeadLetter](f, "DropDeadLetter")
}

func TestDeadLettersAreListedPageByPage(t *testing.T) {
	f := newFake(t)
	all := &discoveryv1.ListDeadLettersResponse{}
	for range 700 {
		all.DeadLetters = append(all.DeadLetters, &discoveryv1.DeadLetter{Id: id.NewDeadLetter().String(), State: discoveryv1.DeadLetterState_DEAD_LETTER_STATE_WAITING,
			Cause: discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_GIVEN_UP, Reason: "in vain"})
	}
	f.answers["ListDeadLetters"] = all
	if r := a3(t, "dead-letter", "list", "--limit", "0", "--state", "waiting"); r.code != 0 || strings.Count(r.out, "given up") != 700 || f.calls("ListDeadLetters") != 2 {
		t.Errorf("%d lines in %d calls, code %d: %s", strings.Count(r.out, "\n"), f.calls("ListDeadLetters"), r.code, r.err)
	}
	if got := last[discoveryv1.ListDeadLettersRequest](t, f, "ListDeadLetters").GetState(); got != discoveryv1.DeadLetterState_DEAD_LETTER_STATE_WAITING {
		t.Errorf("asked for state %s", got)
	}
	r := a3(t, "-o", "json", "dead-letter", "list", "--limit", "3")
	got := &discoveryv1.ListDeadLettersResponse{}
	if err := protojson.Unmarshal([]byte(r.out), got); err != nil || len(got.GetDeadLetters()) != 3 || got.GetNextPageToken() == "" {
		t.Errorf("as JSON: %d letters, %v", len(got.GetDeadLetters()), err)
	}
}

func TestDeadLetterIsSettledWithAReason(t *testing.T) {
	f := newFake(t)
	letter := id.NewDeadLetter().String()
	f.answers["GetDeadLetter"] = &discoveryv1.DeadLetter{Id: letter, State: discoveryv1.DeadLetterState_DEAD_LETTER_STATE_WAITING, Reason: "forged \x1b[31m"}
	if r := a3(t, "dead-letter", "show", letter); r.code != 0 || !strings.Contains(r.out, `forged \x1b[31m`) || !strings.Contains(r.out, "nobody vouches for it") {
		t.Errorf("shown: %+v", r)
	}
	f.answers["DropDeadLetter"] = &discoveryv1.DeadLetter{Id: letter, State: discoveryv1.DeadLetterState_DEAD_LETTER_STATE_DROPPED, SettledReason: "planted by a test"}
	if r := a3(t, "dead-letter", "drop", letter, "--reason", "planted by a test"); r.code != 0 || !strings.Contains(r.out, "dropped") {
		t.Errorf("dropped: %+v", r)
	}
	if q := last[discoveryv1.DropDeadLetterRequest](t, f, "DropDeadLetter"); q.GetReason() != "planted by a test" || q.GetDeadLetterId() != letter {
		t.Errorf("asked %v", q)
	}
	for _, tc := range []struct {
		err  error
		code int
	}{
		{fault.New(fault.FailedPrecondition, "the message expired at noon: it can't be retried, drop it"), 1},
		{fault.New(fault.PermissionDenied, "an admin of the tenant may"), 3},
		{fault.New(fault.NotFound, "there is no such dead letter"), 4},
	} {
		f.refuse["RetryDeadLetter"] = tc.err
		if r := a3(t, "dead-letter", "retry", letter, "--reason", "the key is back"); r.code != tc.code || !strings.Contains(r.err, tc.err.Error()) {
			t.Errorf("%v: %+v", tc.err, r)
		}
	}
}
