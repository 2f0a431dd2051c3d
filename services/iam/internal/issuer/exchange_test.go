package issuer_test

import (
	"net/url"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authn"
	"a3os.app/libs/authz"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
)

func TestExchangeChoosesAWorkspaceOfTheCaller(t *testing.T) {
	e := iamtest.New(t)
	first, second := e.Workspace(t, "Research", e.Admin), e.Workspace(t, "Sales", e.Admin)
	tenantWide := e.Refresh(t, e.Session(t, e.Admin)).AccessToken

	res := e.Exchange(t, tenantWide, first)
	if res.Status != 200 || res.IssuedTokenType != iamtest.AccessToken || res.TokenType != "Bearer" || res.RefreshToken != "" {
		t.Fatalf("answered %+v", res)
	}
	c := e.Claims(t, res.AccessToken)
	want, _ := authz.Permissions([]string{authz.WorkspaceOwner})
	if c.Workspace != first || !slices.Equal(c.Permissions, want) || c.Session != e.Claims(t, tenantWide).Session {
		t.Errorf("claims are %+v: a workspace's token carries its role there and nothing else", c)
	}
	if !c.Transfer.IsZero() {
		t.Errorf("the role rests on no transfer, and the token says %s", c.Transfer)
	}
	if over := e.Exchange(t, res.AccessToken, second); over.Status != 200 || e.Claims(t, over.AccessToken).Workspace != second {
		t.Errorf("from one workspace to the next: %+v", over)
	}
	if n := len(e.Events(t, "iam.token.exchanged")); n != 2 {
		t.Errorf("%d exchanges on the record, want one a workspace", n)
	}
	e.Exchange(t, tenantWide, first)
	if n := len(e.Events(t, "iam.token.exchanged")); n != 2 {
		t.Errorf("%d exchanges on the record after the same one again", n)
	}
}

func TestExchangeNamesTheWorkspaceAsRFC8693Does(t *testing.T) {
	e := iamtest.New(t)
	w, other := e.Workspace(t, "Research", e.Admin), e.Workspace(t, "Sales", e.Admin)
	token := e.Refresh(t, e.Session(t, e.Admin)).AccessToken
	urn, api := "urn:a3os:workspace:"+w.String(), e.Issuer+"/api"
	tests := map[string]struct {
		form url.Values
		err  string
	}{
		"resource":                   {url.Values{"resource": {urn}}, ""},
		"audience":                   {url.Values{"audience": {urn}}, ""},
		"resource and the audience":  {url.Values{"resource": {urn}, "audience": {api}}, ""},
		"twice the same":             {url.Values{"resource": {urn}, "workspace": {w.String()}}, ""},
		"two workspaces":             {url.Values{"resource": {urn, "urn:a3os:workspace:" + other.String()}}, "invalid_request"},
		"none":                       {url.Values{}, "invalid_request"},
		"the audience alone":         {url.Values{"audience": {api}}, "invalid_request"},
		"another resource":           {url.Values{"resource": {"https://globex.localhost:7443"}}, "invalid_target"},
		"not an id":                  {url.Values{"workspace": {"wsp_x"}}, "invalid_target"},
		"an id of another kind":      {url.Values{"workspace": {e.Admin.String()}}, "invalid_target"},
		"a workspace that isn't":     {url.Values{"workspace": {id.NewWorkspace().String()}}, "invalid_target"},
		"an actor":                   {url.Values{"resource": {urn}, "actor_token": {token}, "actor_token_type": {iamtest.AccessToken}}, "invalid_request"},
		"a refresh token is wanted":  {url.Values{"resource": {urn}, "requested_token_type": {"urn:ietf:params:oauth:token-type:refresh_token"}}, "invalid_request"},
		"the subject is an id token": {url.Values{"resource": {urn}, "subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"}}, "invalid_request"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			form := url.Values{"grant_type": {iamtest.TokenExchange}, "subject_token": {token}, "subject_token_type": {iamtest.AccessToken}}
			for k, v := range tc.form {
				form[k] = v
			}
			res := e.Post(t, "/oauth2/token", form)
			if res.Error != tc.err || (tc.err == "") != (res.AccessToken != "") {
				t.Fatalf("answered %+v, want error %q", res, tc.err)
			}
			if tc.err == "" && e.Claims(t, res.AccessToken).Workspace != w {
				t.Errorf("the token is for %s", e.Claims(t, res.AccessToken).Workspace)
			}
		})
	}
}

func TestWorkspaceOfOthersLooksLikeOneThatIsNot(t *testing.T) {
	e := iamtest.New(t)
	theirs := e.Workspace(t, "Research", e.User(t, "ada@example.com", ""))
	token := e.Refresh(t, e.Session(t, e.Admin)).AccessToken
	other, none := e.Exchange(t, token, theirs), e.Exchange(t, token, id.NewWorkspace())
	other.Header, none.Header = nil, nil
	if other.Error != "invalid_target" || other.Status != none.Status || other.Error != none.Error || other.ErrorDescription != none.ErrorDescription {
		t.Errorf("a workspace of others: %+v, one that isn't: %+v", other, none)
	}
}

func TestExchangeLengthensNoLife(t *testing.T) {
	e := iamtest.New(t)
	w := e.Workspace(t, "Research", e.Admin)
	token := e.Refresh(t, e.Session(t, e.Admin)).AccessToken
	ends := e.Claims(t, token).ExpiresAt
	e.Clock.Advance(6 * time.Minute)
	res := e.Exchange(t, token, w)
	if got := e.Claims(t, res.AccessToken).ExpiresAt; !got.Equal(ends) || res.ExpiresIn > 240 || res.ExpiresIn < 200 {
		t.Errorf("the new token ends at %s, the old one at %s; expires_in %d", got, ends, res.ExpiresIn)
	}
	e.Clock.Advance(5 * time.Minute)
	if res := e.Exchange(t, token, w); res.Error != "invalid_grant" {
		t.Errorf("an expired token was answered %+v", res)
	}
}

func TestSubjectTokenThatIsNotOursIsRefused(t *testing.T) {
	e, foreign := iamtest.New(t), iamtest.New(t)
	w := e.Workspace(t, "Research", e.Admin)
	good := e.Refresh(t, e.Session(t, e.Admin)).AccessToken
	resigned := func(change func(*jwt.Token)) string {
		parsed, _, err := jwt.NewParser().ParseUnverified(good, &authn.TokenClaims{})
		if err != nil {
			t.Fatal(err)
		}
		change(parsed)
		s, err := parsed.SignedString(e.Keys.Signer().Key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	account := e.Account(t, "ci", 0)
	assertion, err := e.Assertion(account).SignedString(account.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"another tenant's":     foreign.Refresh(t, foreign.Session(t, foreign.Admin)).AccessToken,
		"a changed signature":  good[:len(good)-8] + "AAAAAAAA",
		"an assertion":         assertion,
		"a refresh token":      e.Session(t, e.Admin),
		"typ JWT":              resigned(func(t *jwt.Token) { t.Header["typ"] = "JWT" }),
		"another audience":     resigned(func(t *jwt.Token) { t.Claims.(*authn.TokenClaims).Audience = jwt.ClaimStrings{"https://x/api"} }),
		"another tenant's tid": resigned(func(t *jwt.Token) { t.Claims.(*authn.TokenClaims).TenantID = id.NewTenant().String() }),
		"nothing":              "x",
	} {
		if res := e.Exchange(t, token, w); res.Error != "invalid_grant" || res.AccessToken != "" {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

func TestRevokedSubjectTokenBuysNothing(t *testing.T) {
	member := iamv1.WorkspaceRole_WORKSPACE_ROLE_MEMBER
	tests := map[string]func(t *testing.T, e *iamtest.Env, ada id.User, w id.Workspace){
		"user deactivated": func(t *testing.T, e *iamtest.Env, ada id.User, _ id.Workspace) {
			if _, err := e.Users.DeactivateUser(e.AsAdmin(t), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: ada.String()})); err != nil {
				t.Fatal(err)
			}
		},
		"tenant role changed": func(t *testing.T, e *iamtest.Env, ada id.User, _ id.Workspace) {
			req := connect.NewRequest(&iamv1.SetTenantRoleRequest{UserId: ada.String(), TenantRole: iamv1.TenantRole_TENANT_ROLE_AUDITOR})
			if _, err := e.Users.SetTenantRole(e.AsAdmin(t), req); err != nil {
				t.Fatal(err)
			}
		},
		"removed from the token's workspace": func(t *testing.T, e *iamtest.Env, ada id.User, w id.Workspace) {
			ctx := e.Ctx(t, e.Admin.String(), w, authz.WorkspaceAdmin)
			if _, err := e.Members.RemoveMember(ctx, connect.NewRequest(&iamv1.RemoveMemberRequest{PrincipalId: ada.String()})); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, revoke := range tests {
		t.Run(name, func(t *testing.T) {
			e := iamtest.New(t)
			ada := e.User(t, "ada@example.com", "")
			w, other := e.Workspace(t, "Research", e.Admin), e.Workspace(t, "Sales", e.Admin)
			e.Member(t, w, ada.String(), member)
			e.Member(t, other, ada.String(), member)
			token := e.Exchange(t, e.Refresh(t, e.Session(t, ada)).AccessToken, w).AccessToken
			if res := e.Exchange(t, token, other); res.Status != 200 {
				t.Fatalf("before: %+v", res)
			}
			revoke(t, e, ada, w)
			if res := e.Exchange(t, token, other); res.Error != "invalid_grant" {
				t.Errorf("after: %+v", res)
			}
		})
	}
}
