package systemtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"a3os.app/libs/fault"
)

// door is one way in: a protocol, over a version of HTTP, through the gateway or past it.
type door struct {
	name     string
	options  []connect.ClientOption
	http1    bool
	straight bool
}

// doors are all ways to a tenant's API. What is refused at one has to be refused at each.
func doors() []door {
	protocols := []door{
		{name: "JSON", options: []connect.ClientOption{connect.WithProtoJSON()}},
		{name: "Connect"},
		{name: "gRPC", options: []connect.ClientOption{connect.WithGRPC()}},
		{name: "gRPC-Web", options: []connect.ClientOption{connect.WithGRPCWeb()}},
		{name: "GET", options: []connect.ClientOption{connect.WithProtoJSON(), connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects)}},
		{name: "JSON over HTTP/1.1", options: []connect.ClientOption{connect.WithProtoJSON()}, http1: true},
		{name: "gRPC-Web over HTTP/1.1", options: []connect.ClientOption{connect.WithGRPCWeb()}, http1: true},
	}
	out := make([]door, 0, 2*len(protocols))
	for _, d := range protocols {
		out = append(out, d)
		d.name, d.straight = d.name+", past the gateway", true
		out = append(out, d)
	}
	return out
}

// leads says whether a method can be reached through the door at all. The gateway doesn't lead to what workloads alone may call on
// the worker; a stream has no GET.
func (d door) leads(m rpcMethod) bool {
	return (d.straight || m.routed()) && (!strings.HasPrefix(d.name, "GET") || !m.streams())
}

// visitor comes through a door of one tenant.
type visitor struct {
	door
	tenant *tenant
	// byComponent are the ways past the gateway; through the gateway there is one, under "".
	byComponent map[string]*http.Client
	// patience is how long the visitor waits for an answer; the deadline travels with the call.
	patience time.Duration
}

// visit opens a door of a tenant, with certificates or without.
func (d door) visit(t testing.TB, x *tenant, certificates ...tls.Certificate) *visitor {
	t.Helper()
	v := &visitor{door: d, tenant: x, byComponent: map[string]*http.Client{}, patience: mostPerCall}
	if !d.straight {
		v.byComponent[""] = d.client(t, x.client(t).Transport.(*http.Transport))
		return v
	}
	for component := range x.addresses {
		v.byComponent[component] = d.client(t, past(t, x, component, certificates...).http.Transport.(*http.Transport))
	}
	return v
}

// client is one of the door's own, so that each version of HTTP has connections of its own.
func (d door) client(t testing.TB, like *http.Transport) *http.Client {
	t.Helper()
	transport := like.Clone()
	if d.http1 {
		transport.ForceAttemptHTTP2, transport.Protocols = false, new(http.Protocols)
		transport.Protocols.SetHTTP1(true)
		transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// mostPerCall is how long one call may take: what is refused is refused at once, and a stream that was let in would not end.
const mostPerCall = 20 * time.Second

// send calls a method with a message, nil for an empty one, and answers what anybody could see. Headers are pairs.
func (v *visitor) send(t testing.TB, m rpcMethod, msg proto.Message, header ...string) answer {
	t.Helper()
	if msg == nil {
		msg = dynamicpb.NewMessage(m.Input())
	}
	base, way := v.tenant.url, v.byComponent[""]
	if v.straight {
		base, way = "https://"+v.tenant.addresses[m.component], v.byComponent[m.component]
	}
	options := append([]connect.ClientOption{connect.WithSchema(m.MethodDescriptor), connect.WithResponseInitializer(func(_ connect.Spec, msg any) error {
		if d, ok := msg.(*dynamicpb.Message); ok {
			*d = *dynamicpb.NewMessage(m.Output())
		}
		return nil
	})}, v.options...)
	ctx, cancel := context.WithTimeout(t.Context(), v.patience)
	defer cancel()
	call := dynamicCall{ctx: ctx, client: connect.NewClient[dynamicpb.Message, dynamicpb.Message](way, base+m.path(), options...), msg: msg, header: header}
	body, err := call.do(m)
	// A stream that is refused before it is read is closed after the answer, and by HTTP/1.1 the client may be told that it can't write
	// on before it is told why: then it is asked again. A moment later, for a client that has no time to read doesn't see either which other of
	// its connections are closed, and takes one after the other.
	for again := 0; again < 20 && m.IsStreamingClient() && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)); again++ {
		<-time.After(time.Duration(again) * 10 * time.Millisecond)
		body, err = call.do(m)
	}
	a := answer{status: http.StatusOK, body: body}
	if err != nil {
		a.status, a.code = 0, connect.CodeOf(err).String()
		if ce, ok := errors.AsType[*connect.Error](err); ok {
			a.message = ce.Message()
		}
	}
	return a
}

// dynamicCall is one call by descriptor.
type dynamicCall struct {
	ctx    context.Context //nolint:containedctx // lives as long as the call
	client *connect.Client[dynamicpb.Message, dynamicpb.Message]
	msg    proto.Message
	header []string
}

func (c dynamicCall) set(h http.Header) {
	for i := 0; i+1 < len(c.header); i += 2 {
		h.Add(c.header[i], c.header[i+1])
	}
}

// do calls as the method's kind asks, and answers all that came, as text.
func (c dynamicCall) do(m rpcMethod) (string, error) {
	own, ok := c.msg.(*dynamicpb.Message)
	if !ok {
		return "", fmt.Errorf("a message of type %T is none by descriptor", c.msg)
	}
	switch {
	case m.IsStreamingClient() && m.IsStreamingServer():
		return "", fmt.Errorf("%s streams both ways, which no method of ours did: teach the doors to call it", m.path())
	case m.IsStreamingClient():
		stream := c.client.CallClientStream(c.ctx)
		c.set(stream.RequestHeader())
		_ = stream.Send(own) // what went wrong is told at the end
		res, err := stream.CloseAndReceive()
		if err != nil {
			return "", err
		}
		return text(res.Msg), nil
	case m.IsStreamingServer():
		req := connect.NewRequest(own)
		c.set(req.Header())
		stream, err := c.client.CallServerStream(c.ctx, req)
		if err != nil {
			return "", err
		}
		defer stream.Close()
		var all strings.Builder
		for stream.Receive() {
			all.WriteString(text(stream.Msg()))
		}
		return all.String(), stream.Err()
	default:
		req := connect.NewRequest(own)
		c.set(req.Header())
		res, err := c.client.CallUnary(c.ctx, req)
		if err != nil {
			return "", err
		}
		return text(res.Msg), nil
	}
}

// text is a message as text that is the same for the same message. How much of the log waits to be sealed changes by itself, and is told
// to those alone who may see the whole tenant.
func text(m proto.Message) string {
	if backlog := m.ProtoReflect().Descriptor().Fields().ByName("backlog"); backlog != nil {
		m.ProtoReflect().Clear(backlog)
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// refusal says what is wrong with an answer that should be one of these refusals, and nil where it is one.
func refusal(a answer, kinds ...fault.Kind) error {
	for _, k := range kinds {
		if a.code == fault.Connect(fault.New(k, "")).Code().String() {
			return nil
		}
	}
	return fmt.Errorf("want a refusal as %v, got %s", kinds, a)
}

// crowd runs many tries a few at a time, and counts them.
func crowd[T any](all []T, try func(T)) int {
	const atOnce = 6
	var wg sync.WaitGroup
	next := make(chan T)
	for range atOnce {
		wg.Go(func() {
			for x := range next {
				try(x)
			}
		})
	}
	for _, x := range all {
		next <- x
	}
	close(next)
	wg.Wait()
	return len(all)
}

// held says how many cases of rows were held.
func held(t *testing.T, cases int, rows ...string) {
	t.Helper()
	for _, r := range rows {
		t.Attr("row", fmt.Sprintf("%s %d", r, cases))
	}
}
