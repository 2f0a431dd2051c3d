package profile

import (
	"io"
	"net/http"
	"strings"
)

// API is an HTTP client for calls in one workspace, or in the tenant as a whole. It sends what it is given; where the tenant refuses
// the access token of a call, because something changed since it was issued (a role, a membership), the call is made once more with
// a new one. The session decides whether there is a new one.
type API struct {
	session   *Session
	workspace string
}

// API is a client for calls that present Token(ctx, workspace).
func (s *Session) API(workspace string) *API { return &API{session: s, workspace: workspace} }

// Do sends a request.
func (a *API) Do(req *http.Request) (*http.Response, error) {
	res, err := a.session.client.Do(req) //nolint:gosec // to the tenant that the profile names
	if err != nil || res.StatusCode != http.StatusUnauthorized || req.GetBody == nil {
		return res, err
	}
	presented, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return res, nil
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	_ = res.Body.Close()
	token, err := a.session.renew(req.Context(), a.workspace, presented)
	if err != nil {
		return nil, err
	}
	again := req.Clone(req.Context())
	if again.Body, err = req.GetBody(); err != nil {
		return nil, err
	}
	again.Header.Set("Authorization", "Bearer "+token)
	return a.session.client.Do(again) //nolint:gosec // to the tenant that the profile names
}
