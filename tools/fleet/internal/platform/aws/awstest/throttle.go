package awstest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"a3os.app/libs/ministacktest"
)

// services that are throttled.
var services = []string{"cloudformation", "ecs", "secretsmanager"}

// Throttled is a proxy between fleet and the emulator that refuses calls as AWS does where it is asked too often.
type Throttled struct {
	Server *ministacktest.Server

	mu             sync.Mutex
	calls, refused map[string]int
}

// Throttle puts such a proxy in front of an emulator.
func Throttle(t *testing.T, server *ministacktest.Server) *Throttled {
	t.Helper()
	x := &Throttled{calls: map[string]int{}, refused: map[string]int{}}
	x.Server = server.Behind(t, x.refuses)
	return x
}

// Again has it refuse as in the beginning.
func (x *Throttled) Again() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.calls = map[string]int{}
}

// refuses refuses four calls of a service in a row, which is one more than the SDK makes by itself, and one now and then.
func (x *Throttled) refuses(w http.ResponseWriter, r *http.Request) bool {
	const first, last, every = 4, 7, 25
	service := ""
	for _, name := range services {
		if strings.Contains(r.Header.Get("Authorization"), "/"+name+"/aws4_request") {
			service = name
		}
	}
	if service == "" {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.calls[service]++
	n := x.calls[service]
	if (n < first || n > last) && n%every != 0 {
		return false
	}
	x.refused[service]++
	answers := []struct {
		status int
		code   string
	}{{http.StatusBadRequest, "Throttling"}, {http.StatusTooManyRequests, "TooManyRequestsException"}, {http.StatusServiceUnavailable, "ServiceUnavailable"}}
	a := answers[x.refused[service]%len(answers)]
	if service == "cloudformation" {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(a.status)
		_, _ = fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>Rate exceeded</Message></Error></ErrorResponse>`, a.code)
		return true
	}
	if a.code == "Throttling" {
		a.code = "ThrottlingException"
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(a.status)
	_, _ = fmt.Fprintf(w, `{"__type":%q,"message":"Rate exceeded"}`, a.code)
	return true
}

// Refusals are how many calls were refused; each service's some.
func (x *Throttled) Refusals(t *testing.T) int {
	t.Helper()
	const least = 4
	x.mu.Lock()
	defer x.mu.Unlock()
	all := 0
	for service, n := range x.refused {
		if all += n; n < least {
			t.Errorf("%s was throttled %d times", service, n)
		}
	}
	if len(x.refused) != len(services) {
		t.Errorf("these were throttled: %v", slices.Sorted(maps.Keys(x.refused)))
	}
	return all
}
