// interop_consumer finds a topic through nsqlookupd with go-nsq, prints the body of each message on a line
// of its own, and exits once it has finished COUNT of them.
//
//	interop_consumer TOPIC CHANNEL COUNT LOOKUPD_HTTP_ADDRESS...
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/nsqio/go-nsq"
)

func main() {
	if len(os.Args) < 5 {
		log.Fatal("usage: interop_consumer TOPIC CHANNEL COUNT LOOKUPD_HTTP_ADDRESS...")
	}
	topic, channel, lookupds := os.Args[1], os.Args[2], os.Args[4:]
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}

	config := nsq.NewConfig()
	config.LookupdPollInterval = 500 * time.Millisecond
	config.MaxInFlight = 10
	// Sent to nsqlookupd as a bearer token.
	config.AuthSecret = os.Getenv("INTEROP_AUTH_SECRET")
	consumer, err := nsq.NewConsumer(topic, channel, config)
	if err != nil {
		log.Fatal(err)
	}
	// One handler runs in one goroutine, so received needs no lock.
	received := 0
	consumer.AddHandler(nsq.HandlerFunc(func(message *nsq.Message) error {
		fmt.Printf("%s\n", message.Body)
		received++
		if received == count {
			consumer.Stop()
		}
		return nil
	}))
	if err := consumer.ConnectToNSQLookupds(lookupds); err != nil {
		log.Fatal(err)
	}
	<-consumer.StopChan
}
