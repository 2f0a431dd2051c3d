package awstest

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"a3os.app/libs/ministacktest"
)

// Counted is a proxy between fleet and the emulator that counts calls by operation, for AWS has rates for each.
type Counted struct {
	Server *ministacktest.Server

	mu    sync.Mutex
	calls map[string]int
}

// Count puts such a proxy in front of an emulator.
func Count(t testing.TB, server *ministacktest.Server) *Counted {
	t.Helper()
	x := &Counted{calls: map[string]int{}}
	x.Server = server.Behind(t, func(_ http.ResponseWriter, r *http.Request) bool {
		name := operation(r)
		x.mu.Lock()
		defer x.mu.Unlock()
		x.calls[name]++
		return false
	})
	return x
}

// Taken are the calls since it was asked last, and how many they are.
func (x *Counted) Taken() (calls map[string]int, all int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	calls, x.calls = x.calls, map[string]int{}
	for _, n := range slices.Collect(maps.Values(calls)) {
		all += n
	}
	return calls, all
}

// operation is what a request calls: by its header, by its form, or, at S3, by its method.
func operation(r *http.Request) string {
	_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	service := "?"
	if part := strings.Split(credential, "/"); len(part) > 3 {
		service = part[3]
	}
	if _, name, is := strings.Cut(r.Header.Get("X-Amz-Target"), "."); is {
		return service + ":" + name
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return service + ":" + r.Method
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return service + ":?"
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return service + ":?"
	}
	return service + ":" + form.Get("Action")
}
