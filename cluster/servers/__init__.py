"""The real servers, started natively: Kafka, Postgres, QuestDB and Redis for tests and trials.

Each server is a process of ours with a folder for its data. It binds to loopback, asks for a
password where it can, and dies with the process that started it. Production runs its own servers;
nothing on the price path imports this package.
"""
