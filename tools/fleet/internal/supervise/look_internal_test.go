package supervise

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// Of a process that served, no single answer that did not come is told, nor two; three in a row are, for what they are, and one good answer
// takes that back.
func TestOneMissedAnswerIsNotTold(t *testing.T) {
	began := time.Now()
	l := looked{well: began}
	for i, c := range []struct {
		got   word
		state State
		told  bool
	}{
		{serves, Serving, false}, {silent, "", false}, {serves, Serving, false}, {silent, "", false}, {silent, "", false}, {serves, Serving, false},
		{silent, "", false}, {silent, "", false}, {silent, NotAnswering, true}, {silent, NotAnswering, false}, {refuses, NotReady, true}, {serves, Serving, true},
		{refuses, "", false}, {refuses, "", false}, {refuses, NotReady, true}, {silent, NotAnswering, true},
	} {
		at := began.Add(time.Duration(i+1) * time.Second)
		state, told := l.learn(c.got, at)
		if told != c.told || told && state != c.state {
			t.Errorf("after answer %d, %d: %q, told %v; want %q, %v", i, c.got, state, told, c.state, c.told)
		}
		if (c.got == serves) != l.well.Equal(at) {
			t.Errorf("after answer %d, %d, it was last well at %s", i, c.got, l.well.Sub(began))
		}
	}
}

// Whatever came before, half a minute is enough to tell.
func TestHangIsToldWithinHalfAMinute(t *testing.T) {
	const ask = 2 * probeTime // for readiness, and for life
	if most := lookAfter + missesMany*ask + (missesMany-1)*lookAgain; most > 30*time.Second {
		t.Errorf("it takes up to %s", most)
	}
	l := looked{}
	if p := l.pause(); p < lookAfter/2 || p > lookAfter {
		t.Errorf("one that serves is asked after %s", p)
	}
}

// Who answers is a tenant's, and who asks may be root's: an answer that says to ask elsewhere is no answer of who serves.
func TestReadinessIsAskedNowhereElseThanWasSaid(t *testing.T) {
	var asked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer elsewhere.Close()
	tenants := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer tenants.Close()
	if got := askHTTP(t.Context(), tenants.URL); got != refuses || asked.Load() {
		t.Errorf("it says %v, and elsewhere was asked: %v", got, asked.Load())
	}
}
