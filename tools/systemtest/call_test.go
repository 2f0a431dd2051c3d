package systemtest

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "a3os.app/proto/gen/go/a3os/audit/v1"
	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
	_ "a3os.app/proto/gen/go/a3os/discovery/v1"
	_ "a3os.app/proto/gen/go/a3os/registry/v1"
)

// rpcMethod is a method of the tenant's API.
type rpcMethod struct {
	protoreflect.MethodDescriptor
	rule *authzv1.Rule
	// component serves it.
	component string
}

// path is where it is called.
func (m rpcMethod) path() string { return "/" + string(m.Parent().FullName()) + "/" + string(m.Name()) }

func (m rpcMethod) streams() bool { return m.IsStreamingClient() || m.IsStreamingServer() }

// allMethods are those of every API of ours, by the descriptors.
func allMethods() []rpcMethod {
	var out []rpcMethod
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		area, ours := strings.CutPrefix(string(f.Package()), "a3os.")
		if !ours {
			return true
		}
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				rule, _ := proto.GetExtension(s.Methods().Get(j).Options(), authzv1.E_Rule).(*authzv1.Rule)
				m := rpcMethod{MethodDescriptor: s.Methods().Get(j), rule: rule, component: strings.TrimSuffix(area, ".v1")}
				if s.Name() == "ConnectorService" {
					m.component = "discovery-worker"
				}
				if area != "set.v1" {
					out = append(out, m)
					continue
				}
				// What every service of a set serves.
				for _, m.component = range []string{"audit", "discovery", "discovery-worker", "iam", "integrations"} {
					out = append(out, m)
				}
			}
		}
		return true
	})
	slices.SortFunc(out, func(a, b rpcMethod) int { return strings.Compare(a.path(), b.path()) })
	return out
}

// methods are all methods of a tenant's services.
func methods(t testing.TB) []rpcMethod {
	t.Helper()
	out := slices.DeleteFunc(allMethods(), func(m rpcMethod) bool { return m.rule.GetLevel() == authzv1.Level_LEVEL_PLANE })
	const atLeast = 30
	if len(out) < atLeast {
		t.Fatalf("only %d methods were found", len(out))
	}
	return out
}

// routed says whether the gateway leads to the method.
func (m rpcMethod) routed() bool {
	return m.component != "discovery-worker" && !strings.HasPrefix(m.path(), "/a3os.set.")
}

// answer is what came back, whatever it is.
type answer struct {
	status int
	// code and message of an error; empty where there was none.
	code, message string
	header        http.Header
	// body is whole; of a stream, its messages one after another.
	body string
}

func (a answer) String() string { return fmt.Sprintf("%d %s %q", a.status, a.code, a.message) }

// same says that nobody could tell two answers apart.
func (a answer) same(b answer) bool {
	return a.status == b.status && a.code == b.code && a.message == b.message && (a.code != "" || a.body == b.body)
}

// caller calls as somebody does who keeps to no client: any token, any header, any body, any address.
type caller struct {
	http   *http.Client
	base   string
	header http.Header
}

// through calls a tenant's host through the gateway.
func through(t testing.TB, x *tenant) caller {
	t.Helper()
	return caller{http: x.client(t), base: x.url, header: http.Header{}}
}

// past calls a component's own port, past the gateway, and believes whatever certificate is there. It presents certificates, if any.
func past(t testing.TB, x *tenant, component string, certificates ...tls.Certificate) caller {
	t.Helper()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	addr, ok := x.addresses[component]
	if !ok {
		t.Fatalf("%s has no component %s", x.slug, component)
	}
	return caller{http: &http.Client{Transport: transport, Timeout: time.Minute}, base: "https://" + addr, header: http.Header{}}
}

// with is the caller with one more header.
func (c caller) with(name, value string) caller {
	c.header = c.header.Clone()
	c.header.Add(name, value)
	return c
}

// bearer is the caller with a token.
func (c caller) bearer(token string) caller { return c.with("Authorization", "Bearer "+token) }

// call sends a message and fails the test where no answer comes.
func (c caller) call(t testing.TB, m rpcMethod, msg proto.Message) answer {
	t.Helper()
	raw := []byte("{}")
	if msg != nil {
		var err error
		if raw, err = protojson.Marshal(msg); err != nil {
			t.Fatal(err)
		}
	}
	a, err := c.try(t, m.path(), contentType(m, "json"), frame(m, raw))
	if err != nil {
		t.Fatalf("%s: %v", m.path(), err)
	}
	return a
}

func contentType(m rpcMethod, codec string) string {
	if m.streams() {
		return "application/connect+" + codec
	}
	return "application/" + codec
}

// frame is a message as the Connect protocol sends it: in an envelope on streams, bare otherwise.
func frame(m rpcMethod, raw []byte) []byte {
	if !m.streams() {
		return raw
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(raw))), raw...)
}

// try sends octets.
func (c caller) try(t testing.TB, path, contentType string, body []byte) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", contentType)
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	// A cookie would go to whoever takes a slug over.
	if set := res.Cookies(); len(set) > 0 {
		t.Errorf("%s sets the cookies %v", path, set)
	}
	const most = 64 << 20
	raw, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, header: res.Header, body: string(raw)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/connect+") {
		return a, a.unframe(raw)
	}
	if res.StatusCode != http.StatusOK {
		a.readError(raw)
	}
	return a, nil
}

// get asks for what is served plainly.
func (c caller) get(t testing.TB, path string) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	const most = 64 << 20
	raw, err := io.ReadAll(io.LimitReader(res.Body, most))
	return answer{status: res.StatusCode, header: res.Header, body: string(raw)}, err
}

func (a *answer) readError(raw []byte) {
	var e struct{ Code, Message string }
	if json.Unmarshal(raw, &e) == nil {
		a.code, a.message = e.Code, e.Message
	}
}

// unframe takes a stream's messages, and the error at its end, out of their envelopes.
func (a *answer) unframe(raw []byte) error {
	const head, endOfStream = 5, 2
	var messages []byte
	for len(raw) > 0 {
		if len(raw) < head {
			return errors.New("the stream ends within a frame")
		}
		size := int(binary.BigEndian.Uint32(raw[1:head]))
		if len(raw) < head+size {
			return errors.New("the stream ends within a message")
		}
		if raw[0]&endOfStream != 0 {
			var end struct{ Error json.RawMessage }
			if err := json.Unmarshal(raw[head:head+size], &end); err != nil {
				return err
			}
			a.readError(end.Error)
		} else {
			messages = append(messages, raw[head:head+size]...)
		}
		raw = raw[head+size:]
	}
	a.body = string(messages)
	return nil
}

// unauthenticated says what is wrong with an answer that should be the refusal of a credential, and nil where it is that.
func unauthenticated(a answer) error {
	if a.code != "unauthenticated" || a.status != http.StatusUnauthorized && !strings.HasPrefix(a.header.Get("Content-Type"), "application/connect+") {
		return fmt.Errorf("want 401 unauthenticated, got %s", a)
	}
	return nil
}
