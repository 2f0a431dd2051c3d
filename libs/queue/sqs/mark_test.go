package sqs_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"a3os.app/libs/binding"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/libs/queue/sqs"
)

func TestQueueIsOpenedByItsOwnerAlone(t *testing.T) {
	server := ministacktest.Start(t)
	root := awssqs.NewFromConfig(server.Root())
	a, b := id.NewTenant(), id.NewTenant()
	create := func(name string) string {
		out, err := root.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: &name})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	arn := "arn:aws:sqs:" + ministacktest.Region + ":" + ministacktest.Account + ":"
	reads := func(tenant id.Tenant) aws.Config {
		return server.Role(t, tenant.String(), ministacktest.Statement{Effect: "Allow", Action: []string{"sqs:ListQueueTags"}, Resource: []string{arn + tenant.String() + "-queue"}})
	}
	queueA, bare := create(a.String()+"-queue"), create(a.String()+"-bare")
	roleA, roleB := reads(a), reads(b)
	open := func(cfg aws.Config, where string, owner id.Tenant) error {
		_, err := sqs.OpenPlace(t.Context(), cfg, where, schema, bindingtest.Owner(t, owner))
		return err
	}
	for _, want := range []bool{true, false} {
		if changed, err := sqs.Mark(t.Context(), server.Root(), queueA, bindingtest.Signer(t), a); err != nil || changed != want {
			t.Fatalf("marked: %v, %v", changed, err)
		}
	}
	owner := bindingtest.Owner(t, a)
	if _, err := sqs.OpenPlace(t.Context(), roleA, queueA, schema, owner); err != nil {
		t.Fatal(err)
	}
	if err := open(roleB, queueA, a); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("the role of another opens the queue: %v", err)
	}
	for what, tc := range map[string]struct {
		where string
		owner id.Tenant
		want  error
	}{"another's": {queueA, b, binding.ErrForeign}, "without a mark": {bare, a, binding.ErrUnmarked}} {
		if err := open(server.Root(), tc.where, tc.owner); !errors.Is(err, tc.want) || !strings.Contains(err.Error(), "A3_QUEUE") {
			t.Errorf("a queue %s is opened: %v", what, err)
		}
	}
	if _, err := sqs.Mark(t.Context(), server.Root(), queueA, bindingtest.Signer(t), b); !errors.Is(err, binding.ErrForeign) {
		t.Errorf("another's queue is marked: %v", err)
	}
	for _, where := range []string{"", "postgres://a/b", "https://sqs.eu-central-1.amazonaws.com/queue", "https:///1/q"} {
		if err := open(server.Root(), where, a); err == nil || !strings.Contains(err.Error(), "A3_QUEUE") {
			t.Errorf("%q is opened: %v", where, err)
		}
	}
	// A mark that was copied is worth nothing elsewhere, and one that was changed nothing anywhere.
	tags, err := root.ListQueueTags(t.Context(), &awssqs.ListQueueTagsInput{QueueUrl: &queueA})
	if err != nil {
		t.Fatal(err)
	}
	put := func(where string) {
		t.Helper()
		if _, err := root.TagQueue(t.Context(), &awssqs.TagQueueInput{QueueUrl: &where, Tags: tags.Tags}); err != nil {
			t.Fatal(err)
		}
	}
	put(bare)
	if err := open(server.Root(), bare, a); !errors.Is(err, binding.ErrForeign) {
		t.Errorf("a queue with a copied mark is opened: %v", err)
	}
	for name := range tags.Tags {
		tags.Tags[name] = "A" + tags.Tags[name][1:]
	}
	put(queueA)
	if err := owner.Prove(t.Context()); !errors.Is(err, binding.ErrForged) {
		t.Errorf("a mark that was changed under who serves is believed: %v", err)
	}
}
