package rpc_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"a3os.app/libs/authn"
	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/rpc"
	"a3os.app/libs/scope"
	"a3os.app/libs/workload"
)

// routes are those of the tests' server: one for everybody, and one that asks for a permission.
func routes() []rpc.Route {
	return []rpc.Route{
		{Pattern: "GET /open", Open: "it says which trace it is in", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, trace.SpanContextFromContext(r.Context()).TraceID())
		})},
		{Pattern: "GET /guarded/{what}", Permission: "audit.verify", Serve: func(w http.ResponseWriter, r *http.Request) error {
			sc, err := scope.From(r.Context())
			switch {
			case err != nil:
				return err
			case r.PathValue("what") == "nothing":
				return fault.New(fault.NotFound, "there is nothing")
			case r.PathValue("what") == "fault":
				return errors.New("a cause that is nobody else's business")
			case r.PathValue("what") == "panic":
				panic("a cause that is nobody else's business")
			}
			_, err = fmt.Fprint(w, sc.Principal)
			return err
		}},
	}
}

func TestRouteWithoutRuleIsNotServed(t *testing.T) {
	cfg := rpc.ServerConfig{Identity: workload.Identity{Plane: "dev", Tenant: id.NewTenant(), Service: "iam"}}
	serve := func(http.ResponseWriter, *http.Request) error { return nil }
	for name, r := range map[string]rpc.Route{
		"no rule":                       {Handler: http.NotFoundHandler()},
		"open and with a permission":    {Handler: http.NotFoundHandler(), Open: "why not", Permission: "audit.verify", Serve: serve},
		"a permission of nobody":        {Permission: "audit.everything", Serve: serve},
		"a permission on an open kind":  {Permission: "audit.verify", Handler: http.NotFoundHandler()},
		"open, of the kind that is not": {Open: "why not", Serve: serve},
	} {
		r.Pattern = "GET /secret"
		if _, err := rpc.NewServer(cfg, nil, []rpc.Route{r}); err == nil || !strings.Contains(err.Error(), "/secret") {
			t.Errorf("%s: want a refusal that names the route, got %v", name, err)
		}
	}
}

func TestGuardedRouteLetsInWhoItsRuleNames(t *testing.T) {
	w := newWorld(t)
	auditor := w.claims(func(c *authn.TokenClaims) { c.WorkspaceID, c.Roles = "", []string{authz.TenantAuditor} })
	member := w.claims(nil)
	for name, c := range map[string]struct {
		path, token string
		status      int
		body        string
	}{
		"who may":                     {"/guarded/x", w.token(auditor, nil), 200, auditor.Subject},
		"who may not":                 {"/guarded/x", w.token(member, nil), 403, "audit.verify"},
		"nobody":                      {"/guarded/x", "", 401, "token"},
		"a token of no issuer":        {"/guarded/x", "x.y.z", 401, ""},
		"what isn't there":            {"/guarded/nothing", w.token(auditor, nil), 404, "there is nothing"},
		"a fault of ours":             {"/guarded/fault", w.token(auditor, nil), 500, "request id"},
		"a panic":                     {"/guarded/panic", w.token(auditor, nil), 500, "request id"},
		"another method of the route": {"/guarded", w.token(auditor, nil), 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := w.get(t, c.path, c.token, "")
			if status != c.status || !strings.Contains(body, c.body) || strings.Contains(body, "nobody else's business") {
				t.Errorf("%d %q, want %d and %q", status, body, c.status, c.body)
			}
		})
	}
}

// A workload of the set is not a reader of a route that names a permission: its certificate alone says nothing of a person.
func TestGuardedRouteRefusesASiblingWithoutAToken(t *testing.T) {
	w := newWorld(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://discovery.invalid/guarded/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.client(w.source(w.issuing, workload.Identity{Plane: "dev", Tenant: w.tenant, Service: "iam"})).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("a sibling gets %s", res.Status)
	}
}

func TestOpenRouteIsInTheCallersTrace(t *testing.T) {
	recording(t)
	w := newWorld(t)
	if _, body := w.get(t, "/open", "", sampled); body != traceID {
		t.Errorf("the route is in trace %s, the caller in %s", body, traceID)
	}
}

func (w *world) get(t *testing.T, path, token, traceparent string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://discovery.invalid"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if traceparent != "" {
		req.Header.Set("Traceparent", traceparent)
	}
	res, err := w.client(nil).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
